"""``nnpm predict FOLDER`` on more and more clips: how fast, and does the cost grow as they do?

    python -m benchmarks.bulk --data DIR [--clips 500]

DIR holds corpora with a metadata.csv each. Folders of N, 2 N and 4 N of their clips (as links, in
turns from each corpus) are scored by a process of its own on two cores. Writes
benchmarks/results/bulk.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in (1, options.clips, 2 * options.clips, 4 * options.clips):
            folder = Path(scratch) / str(count)
            folder.mkdir()
            for number, clip in enumerate(clips[:count]):
                (folder / f"{number:06d}{clip.suffix}").symlink_to(clip)
            rows.append(_measure(folder))
    start_s = rows[0][3]  # of one clip: importing, loading, checking the model
    table = [
        "| clips | audio s | clock s | CPU s | times real time, clock | by CPU on two cores "
        "| CPU ms a clip, start left out | MiB at the peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {count} | {audio_s:.0f} | {clock_s:.1f} | {cpu_s:.1f} | {audio_s / clock_s:.0f} "
            f"| {CORES * audio_s / cpu_s:.0f} | {_a_clip_ms(cpu_s - start_s, count)} | {mib:.0f} |"
            for count, audio_s, clock_s, cpu_s, mib in rows
        ),
    ]
    facts = provenance(f"benchmarks/bulk.py --clips {options.clips}") | machine_load()
    write("bulk", "\n".join(table), facts)


def _measure(folder: Path) -> tuple[int, float, float, float, float]:
    """Clips, seconds of audio, of the clock and of the CPU, and the peak in MiB."""
    code = (
        f"import os, sys; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[:CORES]}); "
        f"from nnpm.service.cli import main; sys.exit(main(['predict', {str(folder)!r}, '--json']))"
    )
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=output)
        _, status, used = os.wait4(process.pid, 0)
        clock_s = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        output.seek(0)
        answers = [json.loads(line) for line in output]
    assert all("answer" in line for line in answers), "a clip could not be scored"
    audio_s = sum(line["answer"]["audio"]["duration_s"] for line in answers)
    return len(answers), audio_s, clock_s, _cpu_s(used), used.ru_maxrss / 1024


def _cpu_s(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _a_clip_ms(cpu_s: float, count: int) -> str:
    return f"{1000 * cpu_s / count:.2f}" if count > 1 else "-"


if __name__ == "__main__":
    main()
