"""How long /health/live takes while 64 clients upload.

    python -m benchmarks.liveness [--seconds 20] [--connections 64] [--clip-s 10]

wrk uploads clips as fast as answers come, and each probe is a connection of its own, as an
orchestrator's are. Needs Linux and wrk. Writes benchmarks/results/liveness.md.
"""

import argparse
import http.client
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.provenance import ROOT, provenance, write
from benchmarks.servers import KINDS, Load, Server
from nnpm.training.bundle.parts import voice

EVERY_S = 0.02
GOAL_MS = 10


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--clip-s", type=float, default=10.0)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("benchmarks.liveness needs wrk, which is not on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.wav"
        soundfile.write(clip, voice(180.0, options.clip_s, seed=0), 16_000, subtype="PCM_16")
        with Server(KINDS[0], ROOT / "models/default/2/model.onnx", None, None) as server:
            assert server.wait(clip), "it does not answer"
            idle_ms = probe(server.port, 3)
            loads: list[Load | None] = []
            uploads = threading.Thread(
                target=lambda: loads.append(
                    server.load(clip, connections=options.connections, seconds=options.seconds + 2)
                )
            )
            uploads.start()
            time.sleep(1)
            busy_ms = probe(server.port, options.seconds)
            uploads.join()
    (load,) = loads
    assert load is not None
    rows = [
        "| /health/live | median ms | p99 ms | slowest ms | probes |",
        "| --- | --- | --- | --- | --- |",
    ]
    who = f"while {options.connections} clients upload clips of {options.clip_s:g} s"
    for name, found_ms in (("idle", idle_ms), (who, busy_ms)):
        p99 = float(np.percentile(found_ms, 99))
        rows.append(
            f"| {name} | {statistics.median(found_ms):.1f} | {p99:.1f} | {max(found_ms):.1f} "
            f"| {len(found_ms)} |"
        )
    rows += [
        "",
        f"Goal: p99 of {GOAL_MS} ms. Meanwhile {load.requests / load.seconds:.0f} clips a second "
        f"were answered, {load.failed} of them not with 200. Load generator, probe and "
        f"service share the machine's cores; its load was {os.getloadavg()[0]:.1f} at the end.",
    ]
    write("liveness", "\n".join(rows), provenance("python -m benchmarks.liveness"))


def probe(port: int, seconds: float) -> list[float]:
    """Ask every 20 ms for so long, each time by a new connection; milliseconds of each."""
    took_ms = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/health/live")
        response = connection.getresponse()
        response.read()
        assert response.status == 200
        connection.close()
        took_ms.append(1000 * (time.perf_counter() - began))
        time.sleep(max(0.0, EVERY_S - (time.perf_counter() - began)))
    return took_ms


if __name__ == "__main__":
    main()
