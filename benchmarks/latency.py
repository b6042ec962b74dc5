"""What the bundled model costs: a 3 s clip on one core, beside a plain convolutional model.

    python -m benchmarks.latency [--bundle models/default/2] [--peer conv.onnx]

``--peer`` is a model that takes ``waveform`` (and perhaps ``lengths``), such as the dummy models of
a comparison of servers. Both run in turn, so that the machine's drift meets both. Writes
benchmarks/results/latency.md.
"""

import argparse
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.provenance import provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.waveform import AudioInfo, Recording, Waveform
from nnpm.service.inference.graphs import open_session
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.bundle.parts import voice

ROUNDS = 200


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("models/default/2"))
    parser.add_argument("--peer", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    clip = voice(180.0, 3.0, seed=0)
    inputs = {"waveform": clip[None], "lengths": np.array([len(clip)], np.int64)}
    recognizer = Recognizer(bundles.load(options.bundle))
    recording = Recording(AudioInfo(3.0, 16_000, 1, "WAV"), (Waveform(clip),))
    calls = {"model.onnx": open_session(options.bundle / "model.onnx")}
    if options.peer:
        calls["plain convolutions"] = open_session(options.peer)
    timed = {
        name: lambda s=s: s.run(None, {i.name: inputs[i.name] for i in s.get_inputs()})
        for name, s in calls.items()
    }
    timed["whole answer (quality, windows, model, vote, domain)"] = lambda: recognizer.answer(
        recording
    )
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, call in timed.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    base = np.median(times["model.onnx"])
    rows = [
        f"| {name} | {np.median(t):.2f} | {np.percentile(t, 95):.2f} | {np.median(t) / base:.2f} |"
        for name, t in times.items()
    ]
    header = ["| 3 s clip, one core | median ms | 95 % ms | ratio |", "| --- | --- | --- | --- |"]
    facts = provenance(f"benchmarks/latency.py ({ROUNDS} rounds in turn)")
    facts["onnxruntime"] = version("onnxruntime")
    facts["BLAS threads"] = os.environ.get("OPENBLAS_NUM_THREADS", "not set")
    write("latency", "\n".join(header + rows), facts)


if __name__ == "__main__":
    main()
