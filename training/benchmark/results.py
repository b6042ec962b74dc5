"""Rows of results on disk (JSON lines), as one table of pandas, and where they come from.

A row that was computed once is not computed again: :data:`KEY` identifies it.
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

import pandas as pd

from ... import __version__
from ..errors import TrainingError

Row = dict[str, Any]
"""The values of :data:`KEY`, and the figures of one trial."""

KEY = ("table", "target", "condition", "method", "variant", "seed", "fingerprint")
"""What identifies a row; the fingerprint is of bundle, target clips and configuration."""

NESTED = ("confusion", "speakers", "map")
"""Columns of :func:`to_frame` that hold no single number or text."""


@dataclass(frozen=True, slots=True)
class Results:
    """The file of rows.

    Attributes:
        path: of the file; it need not exist.
    """

    path: Path

    def read(self) -> list[Row]:
        """Read all complete rows; a crash may have left half a row at the end.

        Raises:
            TrainingError: if the file holds something else.
        """
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]
        try:
            rows = [json.loads(line) for line in complete.splitlines()]
        except ValueError:
            raise TrainingError(f"{self.path} is damaged: move it away and start again") from None
        if not all(isinstance(row, dict) and set(KEY) <= set(row) for row in rows):
            raise TrainingError(f"{self.path} does not hold results of nnpm benchmark")
        return rows

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows after the complete ones."""
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")


def key(row: Row) -> tuple[Any, ...]:
    """The key of a row."""
    return tuple(row[name] for name in KEY)


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a row, one column a figure.

    Args:
        rows: as :meth:`Results.read` gives them.

    Returns:
        :data:`KEY`, then the other columns by name. Nested figures become ``base_uar``,
        ``gated_uar``, ``recall_angry``, ``evidence_...`` (the mean over the adaptations of a
        row); several verdicts or counts of clips are joined by ``"; "``; :data:`NESTED` stay as
        they are.
    """
    frame = pd.DataFrame([_flatten(row) for row in rows])
    rest = sorted(set(frame.columns) - set(KEY))
    return frame.reindex(columns=[*KEY, *rest])


def read_frame(path: Path) -> pd.DataFrame:
    """Read ``results.csv`` back: the columns of :func:`to_frame` without :data:`NESTED`."""
    text = ("variant", "verdict", "adapted_clips", "fingerprint", "code")
    frame = pd.read_csv(path, skiprows=1, dtype=dict.fromkeys(text, str))
    return frame.fillna({"variant": ""})


def _flatten(row: Row) -> Row:
    flat = {name: value for name, value in row.items() if name not in _UNFOLDED}
    for part in ("base", "gated", "recall"):
        flat |= {f"{part}_{name}": value for name, value in row.get(part, {}).items()}
    evidence = pd.DataFrame(row.get("evidence", ()), dtype=float).mean()
    flat |= {f"evidence_{name}": value for name, value in evidence.items()}
    for name in ("verdict", "adapted_clips"):
        if name in row:
            flat[name] = "; ".join(map(str, row[name]))
    return flat


_UNFOLDED = ("base", "gated", "recall", "evidence", "reasons", "adapted_clips")


def provenance(command: str) -> dict[str, str]:
    """Command, machine, commit and date of a measurement, to stand under every table.

    Where the package is installed without its repository, its version stands for the commit.
    """
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def markdown_list(facts: Mapping[str, str]) -> str:
    """Provenance as a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


@cache
def code() -> str:
    """A digest of the code that makes the figures: adaptation and benchmark, as on disk."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for part in ("adaptation", "benchmark"):
        for path in sorted((folder / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return f"nnpm {__version__}"
