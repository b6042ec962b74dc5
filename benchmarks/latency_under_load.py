"""How long answers take at 80 % of what the service can do, beside the same without HTTP.

    python -m benchmarks.latency_under_load [--rounds 6] [--seconds 10] [--seed 0]

Requests come at random times (a Poisson process, drawn from the seed), whether or not those before
them are answered, and the time of each counts from when it was planned. In each round, in turn: the
capacity of a loop of whole answers without HTTP, and of the service by wrk; each at 80 % of its own
capacity, with the same draws; and the loop at the service's rate. At 80 % of its own both wait
alike, and what is longer is what HTTP adds; at one rate the loop, whose capacity is larger, also
waits less. Needs Linux and wrk. Writes benchmarks/results/latency_under_load.md.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.cost_per_answer import ANSWER, CostProcess, arrivals_s
from benchmarks.provenance import ROOT, provenance, write
from benchmarks.servers import KINDS, Server
from nnpm.service.system import available_cores
from nnpm.training.bundle.parts import voice

SHARE = 0.8
GOAL = 1.3
CONNECTIONS = 16
_CAPACITY_S = 3
LOOP, SERVICE, SAME = "the loop", "nnpm over HTTP", "the loop, at the service's rate"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models/default/2")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("benchmarks.latency_under_load needs wrk, which is not on the PATH")
    found: dict[str, list[tuple[float, list[float]]]] = {LOOP: [], SERVICE: [], SAME: []}
    busy = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.wav"
        soundfile.write(clip, voice(180.0, 3.0, seed=0), 16_000, subtype="PCM_16")
        model = (options.bundle / "model.onnx").resolve()
        with (
            Server(KINDS[0], model, None, None) as server,
            CostProcess(clip, options.bundle) as loops,
        ):
            assert server.wait(clip), "it does not answer"
            for number in range(options.rounds):
                seed = options.seed + number
                rates = _capacities(server, loops, clip)
                for name, rate in rates.items():
                    if name == SERVICE:
                        arrivals = arrivals_s(rate, options.seconds, seed)
                        server.signal(signal.SIGCONT)
                        took_ms = server.latencies_ms(clip, arrivals)
                        server.signal(signal.SIGSTOP)
                    else:
                        took_ms = loops.latencies_ms(
                            ANSWER, available_cores(), rate, options.seconds, seed
                        )
                    found[name].append((rate, took_ms))
                busy.append(os.getloadavg()[0])
    facts = provenance(
        f"python -m benchmarks.latency_under_load --rounds {options.rounds} --seconds "
        f"{options.seconds} --seed {options.seed}"
    )
    facts["load of the machine"] = f"{min(busy):.1f} to {max(busy):.1f}, the benchmark included"
    write("latency_under_load", "\n".join(_table(found, options.seconds)), facts)


def _capacities(server: Server, loops: CostProcess, clip: Path) -> dict[str, float]:
    """Requests a second of each that are 80 % of what is possible now."""
    cost = loops.ask(ANSWER, available_cores(), _CAPACITY_S)
    server.signal(signal.SIGCONT)
    server.load(clip, connections=1, seconds=1)
    load = server.load(clip, connections=CONNECTIONS, seconds=_CAPACITY_S)
    server.signal(signal.SIGSTOP)
    assert load is not None
    loop, service = cost["requests"] / cost["seconds"], load.requests / load.seconds
    return {LOOP: SHARE * loop, SERVICE: SHARE * service, SAME: SHARE * service}


def _table(found: dict[str, list[tuple[float, list[float]]]], seconds: int) -> list[str]:
    p99s = {name: [_p99(took_ms) for _, took_ms in rounds] for name, rounds in found.items()}
    lines = [
        "| 3 s WAV | requests/s | requests | p50 ms | p95 ms | p99 ms | p99 of each round |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    whole = {}
    for name, rounds in found.items():
        took_ms = [one for _, took in rounds for one in took]
        p50, p95, whole[name] = np.percentile(took_ms, [50, 95, 99])
        each = ", ".join(f"{one:.0f}" for one in p99s[name])
        lines.append(
            f"| {name} | {np.median([rate for rate, _ in rounds]):.0f} | {len(took_ms)} "
            f"| {p50:.0f} | {p95:.0f} | {whole[name]:.0f} | {each} |"
        )
    of_rounds = np.median(np.divide(p99s[SERVICE], p99s[LOOP]))
    return [
        *lines,
        "",
        f"p99 of the service is {whole[SERVICE] / whole[LOOP]:.2f} times that of the loop, each at "
        f"{100 * SHARE:.0f} % of its own capacity ({of_rounds:.2f} in the median of the rounds), "
        f"and {whole[SERVICE] / whole[SAME]:.2f} times at the same rate. Goal: {GOAL}. Rounds of "
        f"{seconds} s; the generator of the requests shares the cores with the service, and "
        "what the loop computes is counted from the planned time too.",
    ]


def _p99(took_ms: list[float]) -> float:
    return float(np.percentile(took_ms, 99))


if __name__ == "__main__":
    main()
