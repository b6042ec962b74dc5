"""``nnpm predict FOLDER`` on more and more clips: how fast, and does the cost grow as they do?

    python -m benchmarks.bulk --data DIR [--clips 500]

DIR holds corpora with a metadata.csv each. Folders of N, 2 N and 4 N of their clips (as links, in
turns from each corpus) are scored by a process of its own on two cores. Writes
benchmarks/results/bulk.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpora import clips_in_turn
from benchmarks.provenance import ROOT, machine_load, provenance, write

CORES = 2


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=500, help="N")
    options = parser.parse_args()
    clips = clips_in_turn(options.data)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in (1, options.clips, 2 * options.clips, 4 * options.clips):
            folder = Path(scratch) / str(count)
            folder.mkdir()
            for number, clip in enumerate(clips[:count]):
                (folder / f"{number:06d}{clip.suffix}").symlink_to(clip)
            found.append(scored(folder, CORES))
    start_s = found[0].cpu_s  # of one clip: importing, loading, checking the model
    table = [
        "| clips | audio s | clock s | CPU s | times real time, clock | by CPU on two cores "
        "| CPU ms a clip, start left out | MiB at the peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {len(one.answers)} | {one.audio_s:.0f} | {one.clock_s:.1f} | {one.cpu_s:.1f} "
            f"| {one.audio_s / one.clock_s:.0f} | {CORES * one.audio_s / one.cpu_s:.0f} "
            f"| {_a_clip_ms(one.cpu_s - start_s, len(one.answers))} | {one.peak_mib:.0f} |"
            for one in found
        ),
    ]
    facts = provenance(f"benchmarks/bulk.py --clips {options.clips}") | machine_load()
    write("bulk", "\n".join(table), facts)


@dataclass(frozen=True)
class Scored:
    """What ``nnpm predict`` answered, and what it took, from its start to its end.

    Attributes:
        answers: one per recording.
        clock_s: by the clock.
        cpu_s: of all its threads and processes.
        peak_mib: its highest resident memory.
    """

    answers: list[dict[str, Any]]
    clock_s: float
    cpu_s: float
    peak_mib: float

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        return float(sum(answer["audio"]["duration_s"] for answer in self.answers))


def scored(path: Path, cores: int, *arguments: str) -> Scored:
    """Run ``nnpm predict`` on a file or folder, on so many of the cores.

    Raises:
        subprocess.CalledProcessError: if it fails, or has no answer for a recording.
    """
    command = ["predict", str(path), "--json", "--strict", *arguments]
    code = (
        f"import os, sys; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[:cores]}); "
        f"from nnpm.service.cli import main; sys.exit(main({command!r}))"
    )
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=output)
        _, status, used = os.wait4(process.pid, 0)
        clock_s = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        output.seek(0)
        found = [json.loads(line) for line in output]
    answers = [line.get("answer", line) for line in found]
    return Scored(answers, clock_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _a_clip_ms(cpu_s: float, count: int) -> str:
    return f"{1000 * cpu_s / count:.2f}" if count > 1 else "-"


if __name__ == "__main__":
    main()
