"""``nnpm predict --engine ray`` beside the plain command: what the cluster costs per clip.

    python -m benchmarks.scale --data DIR [--clips 250]

Folders of N and 2 N clips (as links, in turns from each corpus) are scored by the plain command
with one job, and on local Ray clusters of one and two workers; two workers also score 4 N.
Differences between folders leave out every start; what Ray does beside scoring is counted from the
first part to the last. Writes benchmarks/results/scale.md.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.corpora import clips_in_turn
from benchmarks.provenance import ROOT, machine_load, provenance, write

MARK = "BENCHMARK_OF_SCALE"
"""A variable that all processes of a run inherit, and are found by."""

LOOK_S = 0.1


@dataclass
class Cost:
    """What a run took: of the clock, of the CPU, and of memory that is not shared with files.

    Attributes:
        wall_s: from start to end.
        scoring_s: CPU of the workers and of the processes that decode for them; of the plain
            command, all of it.
        beside_s: CPU of Ray's other processes and of the command itself, between the first part and
            the last.
        between: clips that are scored meanwhile.
        driver_mib: most of the command's own process.
        worker_mib: most of any process that scores.
    """

    wall_s: float = 0.0
    scoring_s: float = 0.0
    beside_s: float = 0.0
    between: int = 0
    driver_mib: float = 0.0
    worker_mib: float = 0.0


@dataclass
class Watch:
    """Follows the processes of a run: Ray's live in no common group, and die unseen."""

    mark: str
    output: Path
    seen: list[tuple[int, float]] = field(default_factory=list)
    cpu_s: dict[int, float] = field(default_factory=dict)
    mib: dict[int, float] = field(default_factory=dict)
    workers: set[int] = field(default_factory=set)
    scoring: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)

    def look(self) -> None:
        """Note what each process has used until now."""
        for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
            if pid in self.others:
                continue
            try:
                self._look(pid)
            except (OSError, IndexError):  # it has ended
                continue
        used_s = sum(self.cpu_s[pid] for pid in self.cpu_s.keys() - self.scoring)
        self.seen.append((len([*self.output.glob("*.parquet")]), used_s))

    def beside(self) -> tuple[float, int]:
        """CPU seconds beside scoring, and clips, between the first part and the last."""
        parts = [
            len(json.loads(line))
            for line in gzip.decompress((self.output / "_plan.jsonl.gz").read_bytes()).splitlines()
        ]
        first = next(one for one in self.seen if one[0] >= 1)
        last = next(one for one in self.seen if one[0] == len(parts))
        return last[1] - first[1], sum(parts[first[0] :])

    def _look(self, pid: int) -> None:
        folder = Path("/proc", str(pid))
        if pid not in self.cpu_s and self.mark not in (folder / "environ").read_text("latin-1"):
            self.others.add(pid)
            return
        times = (folder / "stat").read_text().rpartition(")")[2].split()
        self.cpu_s[pid] = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        command = (folder / "cmdline").read_bytes()
        if b"MapWorker" in command:
            self.workers.add(pid)
        if b"MapWorker" in command or b"audio.decoder" in command:
            self.scoring.add(pid)
        private = (folder / "status").read_text().partition("RssAnon:")[2].split()[0]
        self.mib[pid] = max(self.mib.get(pid, 0.0), int(private) / 1024)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=250, help="N")
    options = parser.parse_args()
    clips = clips_in_turn(options.data)
    found: dict[tuple[int, int], Cost] = {}
    sizes = [count for count in (1, 2, 4) if count * options.clips <= len(clips)]
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            folder = Path(scratch) / str(size)
            folder.mkdir()
            for number, clip in enumerate(clips[: size * options.clips]):
                (folder / f"{number:06d}{clip.suffix}").symlink_to(clip)
            for workers in (0, 1, 2) if size < 4 else (2,):
                found[workers, size] = _measure(folder, workers)
                sys.stderr.write(f"{workers} workers, {size} N: {found[workers, size]}\n")
    facts = provenance(f"benchmarks/scale.py --clips {options.clips}") | machine_load()
    write("scale", "\n".join([*_costs(found, options.clips), "", *_memory(found, options)]), facts)


def _costs(found: dict[tuple[int, int], Cost], clips: int) -> list[str]:
    def a_clip_ms(workers: int, name: str) -> float:
        less, more = (getattr(found[workers, size], name) for size in (1, 2))
        return float(1000 * (more - less) / clips)

    plain_wall_ms, plain_ms = a_clip_ms(0, "wall_s"), a_clip_ms(0, "scoring_s")
    table = [
        "| engine | clock ms a clip | CPU ms a clip of those that score | clips per CPU second of "
        "those that score, plain = 1 | CPU ms a clip of all else "
        "| clock ms a clip and worker, more than plain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for workers in (0, 1, 2):
        name = f"Ray, {workers} worker{'s' * (workers > 1)}" if workers else "plain, one job"
        wall_ms, scoring_ms = a_clip_ms(workers, "wall_s"), a_clip_ms(workers, "scoring_s")
        ours = [cost for (one, _), cost in found.items() if one == workers and workers]
        beside_ms = 1000 * sum(c.beside_s for c in ours) / max(1, sum(c.between for c in ours))
        table.append(
            f"| {name} | {wall_ms:.2f} | {scoring_ms:.2f} | {plain_ms / scoring_ms:.2f} "
            f"| {beside_ms:.2f} | {wall_ms * max(1, workers) - plain_wall_ms:.2f} |"
        )
    return table


def _memory(found: dict[tuple[int, int], Cost], options: argparse.Namespace) -> list[str]:
    return [
        "| clips, two workers | MiB of the command at most | MiB of a worker at most |",
        "| --- | --- | --- |",
        *(
            f"| {size * options.clips} | {cost.driver_mib:.0f} | {cost.worker_mib:.0f} |"
            for (workers, size), cost in found.items()
            if workers == 2
        ),
    ]


def _measure(folder: Path, workers: int) -> Cost:
    """Score a folder in processes of their own."""
    with tempfile.TemporaryDirectory() as top:
        output = Path(top) / ("out" if workers else "out.parquet")
        options = ["-o", str(output), "--json", "--jobs", str(max(1, workers))]
        options += ["--engine", "ray"] if workers else []
        code = "import sys; from nnpm.service.cli import main; sys.exit(main())"
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", code, "predict", str(folder), *options],
            cwd=ROOT, stdout=subprocess.PIPE,
            # Ray's workers step back for other work of the machine otherwise
            env={**os.environ, MARK: top, "RAY_worker_niceness": "0"},
        )  # fmt: skip
        watch, ended = Watch(f"{MARK}={top}", output), threading.Event()

        def follow() -> None:
            while not ended.wait(LOOK_S):
                watch.look()

        thread = threading.Thread(target=follow)
        thread.start()
        said = process.stdout.read() if process.stdout else b""
        ended.set()
        thread.join()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert json.loads(said)["failed"] == 0
        wall_s = time.perf_counter() - begin
        beside_s, between = watch.beside() if workers else (0.0, 0)
    plain_s = used.ru_utime + used.ru_stime
    return Cost(
        wall_s,
        sum(watch.cpu_s[pid] for pid in watch.scoring) if workers else plain_s,
        beside_s,
        between,
        watch.mib.get(process.pid, 0.0),
        max((watch.mib[pid] for pid in watch.workers), default=0.0),
    )


if __name__ == "__main__":
    main()
