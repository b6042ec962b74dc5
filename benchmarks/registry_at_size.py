"""A registry at size, simulated: what start, lists and promotion cost.

    python -m benchmarks.registry_at_size --languages 200 --versions 5 --jobs 10000

Twice: with tiny bundles of 1,000 memory slots, and with hard links to a real one (--bundle), whose
memory and loading times are real. Each in a process of its own. Writes
benchmarks/results/registry_at_size.md.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from benchmarks.provenance import ROOT, machine_load, provenance, write
from nnpm.service.api.app import create_app
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import CARD, SEAL, Memory, seal
from nnpm.service.inference.card import canonical_language
from nnpm.service.inference.errors import ParameterError
from nnpm.service.jobs.database import jobs as table
from nnpm.service.jobs.job import Job, State
from nnpm.service.jobs.store import JobStore
from nnpm.service.registry import state as states
from nnpm.service.registry.state import Promotion
from nnpm.service.settings import Settings
from nnpm.training.bundle.parts import as_stored, memory_file
from tests.support.hostile.watch import resident_mib
from tests.support.servers import wait_until_ready
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS, WIDTH, write_signed, write_tiny_bundle

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SLOTS = 1000
"""Of a tiny bundle."""

SHOWN = {
    "slots": "memory slots of all versions",
    "start_s": "start until ready, s",
    "start_mib": "memory that the start takes, MiB",
    "list_models_s": "`GET /models`, s",
    "list_jobs_s": "`GET /adapt`, the last 100, s",
    "metrics_s": "`GET /metrics`, s",
    "look_for_changes_s": "one look for changes, twice a second, s",
    "first_request_of_a_language_s": "first request for a language, s",
    "second_request_of_a_language_s": "second, s",
    "neighbours_s": "a request with neighbours, which reads the memory, s",
    "promote_s": "promotion, s",
    "each_language_s": "one request for each language, s a language",
    "end_mib": "memory after that, beside the process, MiB",
}


def main() -> int:
    """Measure both in processes of their own, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--languages", type=int, default=200)
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models/default/2")
    parser.add_argument("--only", choices=["tiny", "real"], help="print one as JSON, write nothing")
    args = parser.parse_args()
    if args.only is not None:
        return _one(args)
    command = [sys.executable, "-m", "benchmarks.registry_at_size", *sys.argv[1:], "--only"]
    found = {
        kind: json.loads(
            subprocess.run([*command, kind], cwd=ROOT, check=True, capture_output=True).stdout
        )
        for kind in ("tiny", "real")
    }
    rows = [
        f"| {text} | {found['tiny'][name]} | {found['real'][name]} |"
        for name, text in SHOWN.items()
    ]
    size = f"{args.languages} languages x {args.versions} versions, {args.jobs} jobs"
    table = [f"| {size} | tiny bundles | {args.bundle.parent.name}/{args.bundle.name} |"]
    facts = provenance("benchmarks/registry_at_size.py") | machine_load()
    write("registry_at_size", "\n".join([*table, "| --- | --- | --- |", *rows]), facts)
    return 0


def _one(args: argparse.Namespace) -> int:
    """Build a registry, measure, print JSON."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        settings = Settings(models=top / "models", allowed_hosts=("testserver",))
        tags = _tags(args.languages)
        slots = _registry(top, args.bundle if args.only == "real" else None, tags, args.versions)
        _jobs(settings.database_url, tags, args.jobs)
        found = {"slots": slots, **_measured(settings, tags)}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


def _tags(count: int) -> list[str]:
    """The first tags of BCP-47 of two letters, and then of three."""
    found = []
    for length in (2, 3):
        for letters in itertools.product(LETTERS, repeat=length):
            with contextlib.suppress(ParameterError):
                found.append(canonical_language("".join(letters)))
            if len(found) == count:
                return found
    return found


def _registry(top: Path, bundle: Path | None, tags: list[str], versions: int) -> int:
    """Make the versions, of hard links; give the memory slots of all of them."""
    source = top / "source"
    if bundle is None:
        write_tiny_bundle(source)
        write_signed(source, "memory.safetensors", _memory())
    else:  # links do not reach from one file system to another
        shutil.copytree(bundle, source)
    slots = len(bundles.load(source).memory().emotion)
    card = json.loads((source / CARD).read_text("utf-8"))
    base = hashlib.sha256(json.dumps(card).encode()).hexdigest()
    number = 0
    for tag in ["und", *tags]:
        for _ in range(versions if tag != "und" else 1):
            number += 1
            home = top / "models/default" / str(number)
            home.mkdir(parents=True)
            for path in source.iterdir():
                if path.name not in (CARD, SEAL):
                    os.link(path, home / path.name)
            own = card | ({} if tag == "und" else {"language": tag, "parent": base})
            text = json.dumps(own).encode()
            (home / CARD).write_bytes(text)
            (home / SEAL).write_bytes(seal(text))
    steps = tuple(
        Promotion(language=tag, version=str(1 + versions * (index + 1)), before=None)
        for index, tag in enumerate(tags)
    )
    state = states.State(next_version=number + 1, promotions=steps)
    states.write(top / "models/default", state)
    return number * slots


def _memory() -> bytes:
    slot, rng = np.arange(SLOTS), np.random.default_rng(0)
    features = rng.standard_normal((SLOTS, WIDTH)).astype(np.float32)
    speakers = tuple(f"speaker {one % 50}" for one in slot)
    one = ("one",) * SLOTS, ("en",) * SLOTS
    return memory_file(as_stored(Memory(features, slot % len(LABELS), *one, speakers)))


def _jobs(url: str, tags: list[str], count: int) -> None:
    JobStore(url).list()  # makes the tables
    began = datetime.now(UTC) - timedelta(days=30)
    rows = [
        Job(
            owner=f"key {number % 50}", name="default", language=tags[number % len(tags)],
            method="nnpm", source="files", state=State.SUCCEEDED,
            created_at=began + timedelta(minutes=number), updated_at=began,
        ).model_dump()
        for number in range(count)
    ]  # fmt: skip
    with create_engine(url).begin() as connection:
        connection.execute(table.insert(), rows)


def _measured(settings: Settings, tags: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        found[f"{name}_s"] = round(time.perf_counter() - began, 4)
        return result

    before_mib = resident_mib()
    clip, wav = encode(speechlike()), {"Content-Type": "audio/wav"}
    with TestClient(create_app(settings)) as client:
        timed("start", lambda: wait_until_ready(client, 600))
        found["start_mib"] = round(resident_mib() - before_mib)
        timed("list_models", lambda: client.get("/models").raise_for_status())
        timed("list_jobs", lambda: client.get("/adapt").raise_for_status())
        timed("metrics", lambda: client.get("/metrics").raise_for_status())
        serving = client.app.state.services.serving  # type: ignore[attr-defined]
        timed("look_for_changes", serving.refresh)

        def score(tag: str) -> None:
            client.post(f"/predict?language={tag}", content=clip, headers=wav).raise_for_status()

        timed("first_request_of_a_language", lambda: score(tags[0]))
        timed("second_request_of_a_language", lambda: score(tags[0]))
        near = f"/predict?language={tags[0]}&neighbours=5"
        timed("neighbours", lambda: client.post(near, content=clip, headers=wav).raise_for_status())
        body = {"version": "2", "language": tags[1]}
        timed(
            "promote",
            lambda: client.post("/models/default/promote", json=body).raise_for_status(),
        )
        timed("each_language", lambda: [score(tag) for tag in tags])
        found["each_language_s"] = round(found["each_language_s"] / len(tags), 4)
        found["end_mib"] = round(resident_mib() - before_mib)
    return found


if __name__ == "__main__":
    sys.exit(main())
