"""``nnpm predict --engine ray`` beside the plain command: what the cluster costs per clip.

    python -m benchmarks.scale --data DIR [--clips 1000]

Folders of N and 2 N clips are scored by the plain command with one job, and on local Ray clusters
of one and two workers. Differences between the two folders leave out every start. Writes
benchmarks/results/scale.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.corpora import clips_in_turn
from benchmarks.provenance import ROOT, machine_load, provenance, write


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=1000, help="N")
    options = parser.parse_args()
    clips = clips_in_turn(options.data)[: 2 * options.clips]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for count in (len(clips) // 2, len(clips)):
            folder = Path(scratch) / str(count)
            folder.mkdir()
            for number, clip in enumerate(clips[:count]):
                (folder / f"{number:06d}{clip.suffix}").symlink_to(clip)
            folders.append(folder)
        added = len(clips) - len(clips) // 2
        plain_ms = 0.0
        for workers in (0, 1, 2):
            (wall, cpu), (wall_twice, cpu_twice) = (_measure(one, workers) for one in folders)
            wall_ms = 1000 * (wall_twice - wall) / added
            cpu_ms = 1000 * (cpu_twice - cpu) / added
            plain_ms = plain_ms or cpu_ms
            name = f"Ray, {workers} worker{'s' * (workers > 1)}" if workers else "plain, one job"
            beside_ms = wall_ms * max(1, workers) - plain_ms
            rows.append(
                f"| {name} | {wall_ms:.2f} | {cpu_ms:.2f} | {plain_ms / cpu_ms:.2f} "
                f"| {beside_ms if workers else 0:.2f} |"
            )
    table = [
        "| engine | wall ms a clip | CPU ms a clip of those that score | clips per CPU second, "
        "plain = 1 | ms a clip beside scoring, per worker |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    facts = provenance(f"benchmarks/scale.py --clips {options.clips}") | machine_load()
    write("scale", "\n".join(table), facts)


def _measure(folder: Path, workers: int) -> tuple[float, float]:
    """Seconds of the clock and of CPU; with Ray, CPU of the workers while they score."""
    with tempfile.TemporaryDirectory() as top:
        output = Path(top) / ("out" if workers else "out.parquet")
        options = ["-o", str(output), "--json", "--jobs", str(max(1, workers))]
        options += ["--engine", "ray"] if workers else []
        code = "import sys; from nnpm.service.cli import main; sys.exit(main())"
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", code, "predict", str(folder), *options],
            cwd=ROOT, stdout=subprocess.PIPE,
        )  # fmt: skip
        said = process.stdout.read() if process.stdout else b""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        wall_s = time.perf_counter() - begin
    cpu_s = json.loads(said)["cpu_s"] if workers else used.ru_utime + used.ru_stime
    return wall_s, cpu_s


if __name__ == "__main__":
    main()
