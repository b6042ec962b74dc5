"""A registry at size, simulated: what start, lists and promotion cost.

    python -m benchmarks.registry_at_size --languages 200 --versions 5 --jobs 10000

Bundles are tiny, or hard links to those of --bundle: then memory is that of real ones.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from nnpm.service.api.app import create_app
from nnpm.service.inference.bundle import CARD, SEAL, seal
from nnpm.service.inference.card import canonical_language
from nnpm.service.inference.errors import ParameterError
from nnpm.service.jobs.database import jobs as table
from nnpm.service.jobs.job import Job, State
from nnpm.service.jobs.store import JobStore
from nnpm.service.registry.state import Promotion, write
from nnpm.service.registry.state import State as Aliases
from nnpm.service.settings import Settings
from tests.support.hostile.watch import resident_mib
from tests.support.servers import wait_until_ready
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import write_tiny_bundle

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main() -> int:
    """Build it, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--languages", type=int, default=200)
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--bundle", type=Path, help="real bundle to multiply [a tiny one]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        settings = Settings(models=top / "models", allowed_hosts=("testserver",))
        tags = _tags(args.languages)
        _registry(top, args.bundle, tags, args.versions)
        _jobs(settings.database_url, tags, args.jobs)
        found = _measured(settings, tags)
    sys.stdout.write(json.dumps(vars(args) | found, indent=1, default=str) + "\n")
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


def _registry(top: Path, bundle: Path | None, tags: list[str], versions: int) -> None:
    source = bundle or top / "source"
    if bundle is None:
        write_tiny_bundle(source)
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
    write(top / "models/default", Aliases(next_version=number + 1, promotions=steps))


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
        body = {"version": "2", "language": tags[1]}
        timed(
            "promote",
            lambda: client.post("/models/default/promote", json=body).raise_for_status(),
        )
        timed("one_request_of_each_language", lambda: [score(tag) for tag in tags])
        found["end_mib"] = round(resident_mib() - before_mib)
    return found


if __name__ == "__main__":
    sys.exit(main())
