"""The service beside other servers around the same ONNX file, in one interleaved run.

    python -m benchmarks.serving [--peers DIR --venvs DIR] [--rounds 5] [--seconds 5]

``--peers`` holds one folder per server with its run.sh (environment: MODEL, PORT, PY, THREADS), and
``--venvs`` one virtual environment each; without them the service is compared with loops that have
no HTTP at all. All servers stay up and all but the one that is asked are stopped (SIGSTOP), so that
each round meets every server within a minute. Needs Linux and wrk. Writes
benchmarks/results/serving.md.
"""

import argparse
import contextlib
import io
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.provenance import provenance, write
from benchmarks.servers import KINDS, ROOT, Load, Server
from service.cores import available_cores
from service.inference import bundle as bundles
from service.inference.audio import decode
from service.inference.recognizer import Recognizer
from training.probe import voice

CONNECTIONS = 16
_IDLE_S = 3


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models/default/1")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--venvs", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("benchmarks.serving needs wrk, which is not on the PATH")
    model = (options.bundle / "model.onnx").resolve()
    own, *others = KINDS
    wanted = [own]
    if options.peers is not None:
        wanted += [k for k in others if (options.venvs / _venv(k.folder or "")).is_dir()]
    with contextlib.ExitStack() as stack:
        clip = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "clip.wav"
        soundfile.write(clip, voice(180.0, 3.0, seed=0), 16_000, subtype="PCM_16")
        servers = []
        for kind in wanted:
            server = stack.enter_context(Server(kind, model, options.peers, options.venvs))
            if not server.wait(clip):
                print(f"{kind.name} does not answer and is left out", file=sys.stderr)
                continue
            server.load(clip, connections=CONNECTIONS, seconds=2)
            server.signal(signal.SIGSTOP)
            servers.append(server)
        _measure(servers, _loops(options.bundle, clip.read_bytes()), clip, options)


def _venv(folder: str) -> str:
    return "base" if folder == "fastapi_plain" else folder


def _loops(path: Path, data: bytes) -> dict[str, Callable[[], object]]:
    """What one answer is without HTTP: decoding and the graph alone, and all that we answer."""
    recognizer = Recognizer(bundles.load(path))

    def bare() -> None:
        samples = decode(io.BytesIO(data)).waveforms[0].samples
        recognizer.model.run(samples[None], np.array([len(samples)], np.int64))

    return {
        "loop: decode, model.onnx": bare,
        "loop: decode, whole answer": lambda: recognizer.answer(decode(io.BytesIO(data))),
    }


def _run(call: Callable[[], object], threads: int, seconds: float) -> tuple[Load, float]:
    """Call from so many threads for so long; also the CPU milliseconds of this process."""
    counts = [0] * threads
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            call()
            counts[number] += 1

    began, cpu = time.perf_counter(), time.process_time()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took, used = time.perf_counter() - began, 1000 * (time.process_time() - cpu)
    return Load(sum(counts), took, 0.0, 0.0, 0), used


def _measure(
    servers: list[Server],
    loops: dict[str, Callable[[], object]],
    clip: Path,
    options: argparse.Namespace,
) -> None:
    loads: dict[str, list[tuple[Load, float]]] = {}
    idle = {}
    for round_ in range(options.rounds):
        for name, call in loops.items():
            loads.setdefault(name, []).append(_run(call, available_cores(), options.seconds))
        for server in servers:
            server.signal(signal.SIGCONT)
            server.load(clip, connections=1, seconds=1)
            before = server.cpu_ms()
            load = server.load(clip, connections=CONNECTIONS, seconds=options.seconds)
            time.sleep(0.5)
            used = server.cpu_ms() - before
            assert load is not None
            loads.setdefault(server.kind.name, []).append((load, used))
            if round_ == options.rounds - 1:
                before = server.cpu_ms()
                time.sleep(_IDLE_S)
                idle[server.kind.name] = (server.cpu_ms() - before) / (10 * _IDLE_S)
            server.signal(signal.SIGSTOP)
    memory = {server.kind.name: server.memory_mib() for server in servers}
    bare = _cpu(loads["loop: decode, model.onnx"])
    reference = _rate(loads["loop: decode, whole answer"])
    lines = [
        "| 3 s WAV | CPU ms/request | over the bare model | requests/s | of the answer's loop "
        "| p50 ms | p99 ms | failed | idle CPU % | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in loads.items():
        p50, p99 = (
            statistics.median(getattr(load, k) for load, _ in found) for k in ("p50_ms", "p99_ms")
        )
        latency = f"{p50:.0f} | {p99:.0f}" if p50 else " | "
        rest = f"{idle[name]:.1f} | {memory[name]:.0f}" if name in idle else " | "
        failed = sum(load.failed for load, _ in found)
        lines.append(
            f"| {name} | {_cpu(found):.2f} | {_cpu(found) - bare:+.2f} | {_rate(found):.0f} "
            f"| {_rate(found) / reference:.2f} | {latency} | {failed} | {rest} |"
        )
    lines += [
        "",
        f"Medians of {options.rounds} rounds of {options.seconds} s; {CONNECTIONS} connections, "
        f"{available_cores()} threads in the loops and in the service. The load generator shares "
        "the cores with the servers, and not with the loops. Peers answer with the graph's scores "
        "alone; the service adds speech detection, the memory's vote, the out-of-domain figure and "
        "segments.",
    ]
    write("serving", "\n".join(lines), provenance("python -m benchmarks.serving"))


def _cpu(found: list[tuple[Load, float]]) -> float:
    return statistics.median(used / max(1, load.requests) for load, used in found)


def _rate(found: list[tuple[Load, float]]) -> float:
    return statistics.median(load.requests / load.seconds for load, _ in found)


if __name__ == "__main__":
    main()
