"""Rows on disk, one JSON object a line: what was computed once is not computed again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import TrainingError

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
