"""Fuzz the input that a client controls: recordings, archives and forms.

    python -m benchmarks.fuzz [--seconds 300] [--only decoder]

Each target runs in a process of its own (tests/support/hostile/fuzzing.py, atheris), begins with
the hostile corpus, and ends at its first finding, which is kept under build/fuzz. Writes
benchmarks/results/fuzz.md, and exits with 1 if anything was found.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.provenance import ROOT, provenance, write

FOUND = ROOT / "build/fuzz"
SHARES = {"decoder": 0.3, "opener": 0.4, "archive": 0.15, "form": 0.15}
WHAT = {
    "decoder": "`decode`, mixed and split, with its processes",
    "opener": "what such a process does: libsndfile and FFmpeg",
    "archive": "`unpack` of zip, tar, tar.gz, tar.zst",
    "form": "the forms of `/adapt` and `/predict`",
}
_LONGEST_INPUT_BYTES = 65_536
_HANG_S = 60
_MEMORY_MIB = 1_500


@dataclass(frozen=True, slots=True)
class Run:
    """What came of fuzzing one target."""

    name: str
    inputs: int
    seconds: int
    covered: int
    found: tuple[str, ...]


def main() -> None:
    """Fuzz, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together")
    parser.add_argument("--only", choices=SHARES, help="one target, for all of the time")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = SHARES if options.only is None else {options.only: 1.0}
    runs = [
        fuzz(name, max(1, round(share * options.seconds)), options.seed)
        for name, share in names.items()
    ]
    lines = [
        "| target | inputs | seconds | edges covered | found |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {WHAT[run.name]} | {run.inputs} | {run.seconds} | {run.covered} "
        f"| {'; '.join(run.found) or 'nothing'} |"
        for run in runs
    ]
    lines += [
        "",
        f"atheris {version('atheris')}. Edges are those of our Python and of soundfile, zipfile, "
        "tarfile, python_multipart and starlette; the C libraries are not instrumented, and are "
        "reached by the hostile corpus that the fuzzing begins with. A finding is an error that is "
        "not one of ours, a crash, more than 3 s of CPU, or a file where none may be.",
    ]
    command = f"python -m benchmarks.fuzz --seconds {options.seconds} --seed {options.seed}"
    write("fuzz", "\n".join(lines), provenance(command))
    sys.exit(any(run.found for run in runs))


def fuzz(name: str, seconds: int, seed: int) -> Run:
    """Fuzz one target for so long, after its seeds have been tried."""
    FOUND.mkdir(parents=True, exist_ok=True)
    before = set(FOUND.iterdir())
    with tempfile.TemporaryDirectory() as seeds:
        child = subprocess.run(
            [sys.executable, "-m", "tests.support.hostile.fuzzing", name, seeds,
             f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={_LONGEST_INPUT_BYTES}",
             f"-timeout={_HANG_S}", f"-rss_limit_mb={_MEMORY_MIB}",
             f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1",
             "-close_fd_mask=3"],  # the libraries print what they think of a file
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    text = child.stdout.decode("utf-8", "replace")
    found = tuple(path.name for path in sorted(set(FOUND.iterdir()) - before))
    if child.returncode and not found:
        found = (f"it ended with {child.returncode}",)
    if found:
        print(text[-4000:], file=sys.stderr)
    took = re.findall(r"Done \d+ runs in (\d+) second", text)
    return Run(
        name,
        int(_last(r"number_of_executed_units: (\d+)", text)),
        int(took[-1]) if took else seconds,
        int(_last(r"cov: (\d+)", text)),
        found,
    )


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    return str(found[-1]) if found else "0"


if __name__ == "__main__":
    main()
