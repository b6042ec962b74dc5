"""What one answer costs without HTTP: loops over the same clip, in a separate process.

    python -m benchmarks.cost_per_answer CLIP BUNDLE

reads lines ``NAME THREADS SECONDS`` and answers each with a line of JSON: requests, seconds, and
milliseconds of CPU in all. ``stages COUNT`` gives the median of each stage, on one thread, and
``planned NAME THREADS RATE SECONDS SEED`` the latencies of calls that come at random times.
"""

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.provenance import ROOT
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.speech import assess
from nnpm.service.inference.audio.waveform import Limits
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.predict.predict import PredictQuery, predict
from nnpm.service.predict.schemas import ModelPart
from nnpm.service.system import steady_memory

MODEL, DECODED, ANSWER = "model.onnx", "decode, model.onnx", "decode, whole answer, JSON"
LAST_STAGE = "all of these, decision, JSON"
Calls = dict[str, Callable[[], object]]


class CostProcess:
    """The process that runs the loops, from outside."""

    def __init__(self, clip: Path, bundle: Path) -> None:
        # One BLAS thread, as ``nnpm serve`` has it.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cost_per_answer", str(clip), str(bundle)],
            cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, *words: object) -> dict[str, float]:
        """Send one line, and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def latencies_ms(
        self, name: str, threads: int, rate: float, seconds: float, seed: int
    ) -> list[float]:
        """Call at the times of :func:`arrivals_s`, first come first served."""
        return list(self.ask("planned", name, threads, rate, seconds, seed).values())


def arrivals_s(rate: float, seconds: float, seed: int) -> list[float]:
    """Draw the times of a Poisson process: requests of many who know nothing of each other.

    Args:
        rate: requests a second.
        seconds: until the last of them.
        seed: of the draws; another rate scales the same times.
    """
    gaps_s = np.random.default_rng(seed).exponential(1.0, round(2 * rate * seconds) + 100) / rate
    times_s = np.cumsum(gaps_s)
    return [float(one) for one in times_s[times_s < seconds]]


def _calls(data: bytes, recognizer: Recognizer) -> tuple[Calls, Calls]:
    """The loops, and the stages of an answer."""
    query, limits = PredictQuery(), Limits()
    model = ModelPart(name="default", version="1", language="und")
    recording = decode(io.BytesIO(data))
    waveform = recording.waveforms[0]
    samples = waveform.samples

    def decoded() -> None:
        recognizer.model.score(decode(io.BytesIO(data)).waveforms[0].samples)

    def answer() -> str:
        return predict(
            recognizer, io.BytesIO(data), query, model=model, limits=limits, request_id="x"
        ).document.to_json()

    def bare() -> None:
        recognizer.model.score(samples)

    stages: Calls = {
        "decode": lambda: decode(io.BytesIO(data)),
        "model.onnx": bare,
        "speech detection": lambda: assess(waveform),
        LAST_STAGE: answer,
    }
    return {MODEL: bare, DECODED: decoded, ANSWER: answer}, stages


def _loop(call: Callable[[], object], threads: int, seconds: float) -> dict[str, float]:
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
    used_ms = 1000 * (time.process_time() - cpu)
    return {"requests": sum(counts), "seconds": time.perf_counter() - began, "cpu_ms": used_ms}


def _planned(call: Callable[[], object], threads: int, arrivals: list[float]) -> dict[int, float]:
    """Milliseconds from the planned time of each call to its end."""
    took_ms: dict[int, float] = {}
    waiting = iter(enumerate(arrivals))
    lock = threading.Lock()
    began = time.perf_counter() + 0.1

    def work() -> None:
        while True:
            with lock:
                number, at = next(waiting, (-1, 0.0))
            if number < 0:
                return
            time.sleep(max(0.0, began + at - time.perf_counter()))
            call()
            took_ms[number] = 1000 * (time.perf_counter() - began - at)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return dict(sorted(took_ms.items()))


def _stages(calls: Calls, count: int) -> dict[str, float]:
    """Median milliseconds of CPU of each, in turn: caches are as the others left them."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            began = time.thread_time()
            call()
            took[name].append(1000 * (time.thread_time() - began))
    return {name: float(np.median(times)) for name, times in took.items()}


def main() -> None:
    """Answer until the input ends."""
    steady_memory()  # as ``nnpm serve`` has it
    clip, bundle = map(Path, sys.argv[1:])
    loops, stages = _calls(clip.read_bytes(), Recognizer(bundles.load(bundle)))
    for line in sys.stdin:
        name, *numbers = line.rstrip("\n").split("\t")
        found: dict[Any, float]
        if name == "stages":
            found = _stages(stages, int(numbers[0]))
        elif name == "planned":
            loop, threads, rate, seconds, seed = numbers
            arrivals = arrivals_s(float(rate), float(seconds), int(seed))
            found = _planned(loops[loop], int(threads), arrivals)
        else:
            found = _loop(loops[name], int(numbers[0]), float(numbers[1]))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
