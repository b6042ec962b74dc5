"""Where a result comes from: the lines that stand under every table.

How far a figure would move with other speakers.

Rows on disk, one JSON object a line: what was computed once is not computed again.
"""

import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ..config import TrainingError


def provenance(command: str) -> dict[str, str]:
    """Command, machine, commit and date of a measurement.

    Where the package is installed without its repository, its version stands for the commit.
    """
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@cache
def code() -> str:
    """A digest of what the figures are made by: adaptation and benchmark, as they stand on disk."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for part in ("adaptation", "benchmark"):
        for path in sorted((folder / part).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return f"nnpm {__version__}"


_DRAWS = 2000
_LEVEL = 0.95

Counts = Sequence[Sequence[int]]
"""Confusion: truth by row, answer by column."""


def bootstrap_interval(
    seeds: Sequence[Mapping[str, Counts]],
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Bootstrap over speakers of UAR and WA, each the mean over seeds.

    Args:
        seeds: for every seed the confusion of each speaker; the same speakers.

    Returns:
        Lower and upper limit of UAR, then of WA; None with fewer than two speakers.
    """
    names = sorted(seeds[0])
    if len(names) < 2 or any(sorted(seed) != names for seed in seeds):
        return None
    counts = np.array([[seed[name] for name in names] for seed in seeds], np.float64)
    draws = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), _DRAWS
    )
    # seed, draw, truth, answer
    drawn = np.einsum("ds,nsij->ndij", draws, counts)
    hits, clips = np.einsum("ndii->ndi", drawn), drawn.sum(3)
    recalls = np.divide(hits, clips, out=np.full_like(hits, np.nan), where=clips > 0)
    uar = np.nanmean(recalls, axis=2).mean(0)
    wa = (hits.sum(2) / clips.sum(2)).mean(0)
    tails = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    low, high = np.quantile(uar, tails)
    below, above = np.quantile(wa, tails)
    return (float(low), float(high)), (float(below), float(above))


Row = dict[str, Any]
"""A key (:data:`KEY`) and the figures."""

KEY = ("table", "target", "condition", "method", "variant", "seed", "fingerprint")
"""What a row is known by; the fingerprint tells network, target clips and configuration."""


@dataclass(frozen=True, slots=True)
class Results:
    """The file of rows.

    Attributes:
        path: of the file; it need not be there.
    """

    path: Path

    def read(self) -> list[Row]:
        """All whole rows; half a row, left by a crash, is not one.

        Raises:
            TrainingError: if the file holds something else.
        """
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        try:
            rows = [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            raise TrainingError(f"{self.path} is damaged: move it away, and begin anew") from None
        if not all(isinstance(row, dict) and set(KEY) <= set(row) for row in rows):
            raise TrainingError(f"{self.path} holds no results of nnpm benchmark")
        return rows

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows, after what whole rows there are."""
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")


def key(row: Row) -> tuple[Any, ...]:
    """The key of a row."""
    return tuple(row[name] for name in KEY)
