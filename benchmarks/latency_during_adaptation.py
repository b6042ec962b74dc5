"""Latency of /predict while an adaptation runs, beside that of the idle service.

    python -m benchmarks.latency_during_adaptation --data DIR [--rounds 4] [--rate 8] [--note TEXT]

The service is started as users start it. Requests come at a fixed rate (open loop: a slow answer
does not hold up the next request), a 3 s clip each; phases with and without a job alternate in one
run. DIR/urdu holds the recordings that are adapted to. Then promotions are rolled back. Writes
benchmarks/results/latency_during_adaptation.md.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.provenance import ROOT, provenance, write
from benchmarks.service import Service, running_service
from nnpm.training.bundle.parts import voice

_CLIPS = 400
_ROLLBACKS = 20


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("NNPM_TEST_DATA", "data"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rate", type=float, default=8.0)
    parser.add_argument("--note", default="nothing that we know of")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        shutil.copytree(ROOT / "models/default/2", top / "models/default/2")
        (top / "audio").mkdir()
        for path in sorted((Path(options.data) / "urdu").rglob("*.opus"))[:_CLIPS]:
            shutil.copy(path, top / "audio")
        clip = top / "clip.wav"
        soundfile.write(clip, voice(180.0, 3.0, seed=0), 16_000, subtype="PCM_16")
        settings = {
            "NNPM_MODELS": str(top / "models"),
            "NNPM_ADAPT_ROOTS": str(top / "audio"),
            "NNPM_JOBS": str(top / "jobs"),
            "NNPM_DATABASE_URL": f"sqlite:///{top / 'nnpm.db'}",
        }
        with running_service(settings) as service:
            _measure(service, clip.read_bytes(), top / "audio", options)


def _measure(service: Service, clip: bytes, audio: Path, options: argparse.Namespace) -> None:
    _requests(service, clip, options.rate, lambda begun: time.monotonic() - begun < 3)
    idle, busy, jobs = [], [], []
    for _ in range(options.rounds):
        job = _adapt(service, audio)
        began = time.monotonic()
        busy += _requests(service, clip, options.rate, _Running(service, job))
        took = time.monotonic() - began
        jobs.append(took)
        idle += _requests(service, clip, options.rate, lambda b, t=took: time.monotonic() - b < t)
    rows = [
        "| /predict, 3 s WAV | requests | median ms | p95 ms | p99 ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in (("idle service", idle), ("while a job runs", busy)):
        quantiles = " | ".join(f"{np.percentile(found, q):.1f}" for q in (50, 95, 99))
        rows.append(f"| {name} | {len(found)} | {quantiles} |")
    ratios = " | ".join(
        f"{np.percentile(busy, q) / np.percentile(idle, q):.2f}" for q in (50, 95, 99)
    )
    rows.append(f"| ratio | | {ratios} |")
    rows += [
        "",
        f"{options.rounds} jobs of {_CLIPS} clips, {np.median(jobs):.0f} s each (median, with "
        f"requests); {options.rate:g} requests a second in both.",
        "",
        _rollbacks(service),
    ]
    facts = provenance("python -m benchmarks.latency_during_adaptation")
    write("latency_during_adaptation", "\n".join(rows), facts | {"beside it": options.note})


def _rollbacks(service: Service) -> str:
    """How long it takes to go back to a version that answered before, over HTTP."""
    times = []
    for _ in range(_ROLLBACKS):
        for version in ("2", "3"):
            _post(
                f"{service.address}/models/default/promote", {"version": version, "language": "ur"}
            )
        start = time.perf_counter()
        models = _post(f"{service.address}/models/default/rollback", {"language": "ur"})
        times.append(1000 * (time.perf_counter() - start))
        assert models["aliases"]["ur"]["live"] == "2", models
    return (
        f"Roll-back of a promotion, from request to answer: {np.median(times):.0f} ms (median of "
        f"{_ROLLBACKS}; {max(times):.0f} ms at most), without other requests."
    )


def _post(url: str, asked: dict[str, str]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(asked).encode(), headers=headers)
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _adapt(service: Service, audio: Path) -> str:
    return str(_post(f"{service.address}/adapt", {"folder": str(audio), "language": "ur"})["id"])


class _Running:
    """Whether a job still runs, asked once a second: asking is a request, too."""

    def __init__(self, service: Service, job: str) -> None:
        self._url = f"{service.address}/adapt/{job}"
        self._asked = time.monotonic()

    def __call__(self, _: float) -> bool:
        if time.monotonic() - self._asked < 1:
            return True
        self._asked = time.monotonic()
        with urllib.request.urlopen(self._url) as answer:
            found = json.load(answer)
        assert found["state"] not in ("failed", "rejected", "interrupted"), found
        return bool(found["state"] != "succeeded")


def _requests(
    service: Service, clip: bytes, rate: float, goes_on: Callable[[float], bool]
) -> list[float]:
    """Milliseconds of each request."""
    times: list[float] = []
    threads = []

    def ask() -> None:
        start = time.perf_counter()
        service.post(clip)
        times.append(1000 * (time.perf_counter() - start))

    begun = time.monotonic()
    number = 0
    while goes_on(begun):
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
        number += 1
        time.sleep(max(0.0, begun + number / rate - time.monotonic()))
    for thread in threads:
        thread.join()
    return times


if __name__ == "__main__":
    main()
