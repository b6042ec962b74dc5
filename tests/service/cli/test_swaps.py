"""Promotions under load, against a real process."""

import contextlib
import json
import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Server
from tests.support.tiny_bundle import tiny_card, write_tiny_bundle

CONNECTIONS = 16
SWAPS = 20
DROPPED = 10
KEPT = 8
"""More bundles than are ever in memory at once: those that answer or did, and four others."""
BUNDLED = Path(__file__).parents[3] / "models/default/2"


def post(address: str, path: str, body: bytes, kind: str) -> dict[str, Any]:
    request = urllib.request.Request(address + path, data=body, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def resident_mib(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+)", text, re.MULTILINE)[0]) / 1024


@contextlib.contextmanager
def load(
    address: str, clip: bytes, connections: int = CONNECTIONS
) -> Iterator[list[dict[str, Any]]]:
    """Ask on many connections without a pause; every answer is there at the end, and no failure."""
    over = threading.Event()
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(post(address, "/predict?language=ur", clip, "audio/wav"))
            except (OSError, ValueError) as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.slow
def test_twenty_swaps_under_load(server: Server, models: Path, clip: bytes) -> None:
    address = server.address
    for version, temperature in (("3", 0.5), ("4", 5.0)):
        decision = tiny_card().decision.model_copy(update={"temperature": temperature})
        write_tiny_bundle(models / "default" / version, decision=decision)
    known = {
        version: post(address, f"/predict?model=default/{version}", clip, "audio/wav")["scores"]
        for version in ("3", "4")
    }
    assert known["3"] != known["4"]

    def promote(version: str) -> None:
        body = json.dumps({"version": version, "language": "ur"}).encode()
        post(address, "/models/default/promote", body, "application/json")

    promote("3")
    back_s = []
    with load(address, clip) as answers:
        for number in range(SWAPS):
            promote("34"[number % 2])
            time.sleep(0.05)
        for _ in range(5):
            promote("4")
            promote("3")
            began = time.perf_counter()
            post(address, "/models/default/rollback", b'{"language": "ur"}', "application/json")
            back_s.append(time.perf_counter() - began)
            told = post(address, "/predict?language=ur", clip, "audio/wav")
            assert told["model"]["version"] == "4"
    assert len(answers) > 100
    assert {one["model"]["version"] for one in answers} == {"3", "4"}
    for one in answers:
        assert one["scores"] == pytest.approx(known[one["model"]["version"]], abs=1e-6)
    assert (
        sorted(back_s)[2] < 1.0
    )  # under load; benchmarks/results/latency_during_adaptation.md says without


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the memory")
def test_versions_that_were_swapped_out_leave_the_memory(
    server: Server, models: Path, clip: bytes
) -> None:
    """With bundles as they are published: each takes tens of MiB."""
    process, address = server.process, server.address
    versions = [str(number) for number in range(3, 3 + DROPPED + KEPT)]
    for version in versions:
        shutil.copytree(BUNDLED, models / "default" / version, copy_function=os.link)
    resident = []
    with load(address, clip, connections=2):
        for version in versions:
            body = json.dumps({"version": version, "language": "ur"}).encode()
            post(address, "/models/default/promote", body, "application/json")
            resident.append(resident_mib(process.pid))
    one = (resident[2] - resident[0]) / 2
    assert one > 5  # else this would show nothing
    assert resident[-1] - resident[KEPT - 1] < DROPPED * one / 3, resident
