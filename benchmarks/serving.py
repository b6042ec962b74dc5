"""The service beside other servers around the same ONNX file, in one interleaved run.

    python -m benchmarks.serving [--peers DIR --venvs DIR] [--rounds 12] [--seconds 2]

``--peers`` holds one folder per server with its run.sh (environment: MODEL, PORT, PY, THREADS), and
``--venvs`` one virtual environment each; without them the service is compared with loops that have
no HTTP at all. All servers stay up and all but the one that is asked are stopped (SIGSTOP), so that
each round meets every server within a minute. Needs Linux and wrk. Writes
benchmarks/results/serving.md.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import soundfile

from benchmarks.cost_per_answer import ANSWER, DECODED, LAST_STAGE, MODEL, CostProcess
from benchmarks.provenance import ROOT, provenance, write
from benchmarks.servers import KINDS, Load, Server
from nnpm.service.system import available_cores
from nnpm.training.bundle.parts import voice

CONNECTIONS = 16
STAGES = 100
_IDLE_S = 3
_HTTP = "HTTP, form, queue, metrics, log: the service with one answer cached"
_TOGETHER = "what they cost each other: the service, less these two"

_BARE_S = 1.0

Rounds = list[tuple[Load, Load]]
"""What each round saw, and the loop of the bare model just before."""

Found = dict[str, Rounds]
"""By server or loop."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models/default/2")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--venvs", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("benchmarks.serving needs wrk, which is not on the PATH")
    model = (options.bundle / "model.onnx").resolve()
    wanted = [kind for kind in KINDS if kind.folder is None]
    if options.peers is not None:
        others = [kind for kind in KINDS if kind.folder is not None]
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
        loops = stack.enter_context(CostProcess(clip, options.bundle))
        _measure(servers, loops, clip, options)


def _venv(folder: str) -> str:
    return "base" if folder == "fastapi_plain" else folder


def _measure(
    servers: list[Server], loops: CostProcess, clip: Path, options: argparse.Namespace
) -> None:
    found: Found = {}
    idle: dict[str, float] = {}
    busy = []

    def loop(name: str, seconds: float) -> Load:
        cost = loops.ask(name, available_cores(), seconds)
        return Load(int(cost["requests"]), cost["seconds"], 0.0, 0.0, 0, cpu_ms=cost["cpu_ms"])

    for round_ in range(options.rounds):
        for name in (MODEL, DECODED, ANSWER):
            bare = loop(MODEL, _BARE_S)
            found.setdefault(name, []).append((loop(name, options.seconds), bare))
        for server in servers:
            bare = loop(MODEL, _BARE_S)
            server.signal(signal.SIGCONT)
            server.load(clip, connections=1, seconds=1)
            before = server.cpu_ms()
            seen = server.load(clip, connections=CONNECTIONS, seconds=options.seconds)
            time.sleep(0.5)
            assert seen is not None
            seen = replace(seen, cpu_ms=server.cpu_ms() - before)
            found.setdefault(server.kind.name, []).append((seen, bare))
            if round_ == options.rounds - 1:
                before = server.cpu_ms()
                time.sleep(_IDLE_S)
                idle[server.kind.name] = (server.cpu_ms() - before) / (10 * _IDLE_S)
            server.signal(signal.SIGSTOP)
            busy.append(os.getloadavg()[0])
    memory = {server.kind.name: server.memory_mib() for server in servers}
    stages = loops.ask("stages", STAGES)
    own, cached = (_cpu(found[kind.name]) for kind in (KINDS[0], KINDS[2]))
    stages[_HTTP] = cached
    stages[_TOGETHER] = own - cached - stages[LAST_STAGE]
    lines = [
        *_table(found, idle, memory),
        "",
        *_remarks(options, busy, found[servers[0].kind.name]),
        "",
        "| where the time of our answer goes | CPU ms |",
        "| --- | --- |",
        *(f"| {name} | {milliseconds:.2f} |" for name, milliseconds in stages.items()),
        "",
        f"Medians of {STAGES} calls of each stage in turn, on one thread.",
    ]
    command = f"--rounds {options.rounds} --seconds {options.seconds}"
    write("serving", "\n".join(lines), provenance(f"python -m benchmarks.serving {command}"))


def _table(found: Found, idle: dict[str, float], memory: dict[str, float]) -> list[str]:
    decoded, reference = _over(found[DECODED]), _rate(found[ANSWER])
    lines = [
        "| 3 s WAV | CPU ms/request | over the bare model | over decoding and model | requests/s "
        "| of the loop of whole answers | p50 ms | p99 ms | failed | idle CPU % | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rounds in found.items():
        p50, p99, rate = (
            statistics.median(of(load) for load, _ in rounds)
            for of in (attrgetter("p50_ms"), attrgetter("p99_ms"), _requests_per_s)
        )
        latency = f"{p50:.0f} | {p99:.0f}" if p50 else " | "
        rest = f"{idle[name]:.1f} | {memory[name]:.0f}" if name in idle else " | "
        failed = sum(load.failed for load, _ in rounds)
        shown = name if name in idle else f"loop: {name}"
        lines.append(
            f"| {shown} | {_cpu(rounds):.2f} | {_over(rounds):+.2f} "
            f"| {_over(rounds) - decoded:+.2f} | {rate:.0f} "
            f"| {_rate(rounds) / reference:.2f} | {latency} | {failed} | {rest} |"
        )
    return lines


def _remarks(options: argparse.Namespace, busy: list[float], own: Rounds) -> list[str]:
    generator = statistics.median(load.generator_ms / max(1, load.requests) for load, _ in own)
    return [
        f"Medians of {options.rounds} rounds of {options.seconds} s; {CONNECTIONS} connections, "
        f"{available_cores()} threads in the loops and in the service. What is over the bare model "
        f"and shares of a loop are by the bare model's loop of {_BARE_S:g} s just before, as "
        "other work of the host slows all of them down for seconds. The load generator "
        "shares the cores with the servers, and not with the loops; it takes "
        f"{generator:.2f} ms of CPU for each request to the service. Peers answer with the graph's "
        "scores alone; the service adds speech detection, the memory's vote, the out-of-domain "
        "figure, segments, metrics and a line in the log. Load of the machine during the run: "
        f"{min(busy):.1f} to {max(busy):.1f}, median {statistics.median(busy):.1f}.",
    ]


def _cpu(rounds: Rounds) -> float:
    return statistics.median(_cpu_each(load) for load, _ in rounds)


def _over(rounds: Rounds) -> float:
    """CPU of each request over that of the bare model just before, in ms."""
    return statistics.median(_cpu_each(load) - _cpu_each(bare) for load, bare in rounds)


def _rate(rounds: Rounds) -> float:
    """Requests a second as a share of those of the bare model just before."""
    return statistics.median(_requests_per_s(load) / _requests_per_s(bare) for load, bare in rounds)


def _cpu_each(load: Load) -> float:
    return load.cpu_ms / max(1, load.requests)


def _requests_per_s(load: Load) -> float:
    return load.requests / load.seconds


if __name__ == "__main__":
    main()
