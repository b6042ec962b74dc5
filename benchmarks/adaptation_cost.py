"""What ``nnpm adapt`` costs, by clips and by slots of the memory.

    python -m benchmarks.adaptation_cost --data DIR/ased [--bundle models/default/2]

Each row is one run of the command with default settings, by the clock, with its peak of resident
memory. Where the folder has too few clips, they are repeated, each a little quieter. Linux only.
Writes benchmarks/results/adaptation_cost.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.provenance import ROOT, machine_load, provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.formats import audio_files
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ
from nnpm.training.bundle.parts import memory_file

CLIPS = (100, 400, 1600, 5000)
SLOTS = (4_000, 100_000)
SLOTS_CLIPS = 400
QUIETER = 0.995


def fill(folder: Path, data: Path, count: int) -> None:
    """Put ``count`` clips into a folder: the first of ``data``, then the same ones quieter."""
    files = audio_files(data).recordings
    if not files:
        raise SystemExit(f"{data} holds no audio")
    for number in range(count):
        again, path = divmod(number, len(files))
        name = folder / f"{number:05}"
        if not again:
            shutil.copyfile(files[path], name.with_suffix(files[path].suffix))
        else:
            samples = decode(files[path]).waveforms[0].samples * QUIETER**again
            soundfile.write(name.with_suffix(".wav"), samples, SAMPLE_RATE_HZ)


def with_slots(base: Path, count: int, out: Path) -> Path:
    """The same bundle with so many slots: its own ones, repeated."""
    found = bundles.load(base)
    memory = found.memory()
    chosen = np.resize(np.arange(len(memory.emotion)), count)
    names = {
        name: tuple(getattr(memory, name)[slot] for slot in chosen)
        for name in ("corpus", "language", "speaker")
    }
    larger = replace(
        memory, features=memory.features[chosen], emotion=memory.emotion[chosen], **names
    )
    files = {name: (base / name).read_bytes() for name in found.card.files}
    bundles.save(out, found.card, {**files, "memory.safetensors": memory_file(larger)})
    return out


def measure(bundle: Path, folder: Path, out: Path) -> tuple[float, float, int]:
    """Run the command; seconds by the clock and of all cores, and the peak in MiB."""
    run = [sys.executable, "-m", "nnpm.training", "adapt", "--bundle", bundle, "--target", folder]
    started = time.perf_counter()
    child = subprocess.Popen(
        [*map(str, run), "--out", str(out), "--force", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    report = child.stdout.read()
    _, status, use = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    assert status == 0, report
    assert json.loads(report)["bundle"]
    return seconds, use.ru_utime + use.ru_stime, use.ru_maxrss // 1024


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of audio")
    parser.add_argument("--bundle", type=Path, default=Path("models/default/2"))
    options = parser.parse_args()
    data, bundle = options.data.resolve(), options.bundle.resolve()
    lines = [
        "| clips | slots of the memory | by the clock | CPU | peak memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    own = len(bundles.load(bundle).memory().emotion)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        cases = [(count, own) for count in CLIPS] + [(SLOTS_CLIPS, slots) for slots in SLOTS]
        for number, (count, slots) in enumerate(cases):
            folder = top / f"clips-{count}"
            if not folder.exists():
                folder.mkdir()
                fill(folder, data, count)
            base = bundle if slots == own else with_slots(bundle, slots, top / f"base-{slots}")
            seconds, cpu, peak = measure(base, folder, top / f"out-{number}")
            lines.append(f"| {count:,} | {slots:,} | {seconds:.1f} s | {cpu:.1f} s | {peak} MiB |")
            print(lines[-1])
    facts = provenance(f"python -m benchmarks.adaptation_cost --data DIR/{data.name}")
    write("adaptation_cost", "\n".join(lines), facts | machine_load())


if __name__ == "__main__":
    main()
