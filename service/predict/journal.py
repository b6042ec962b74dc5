"""An output of many recordings that survives an interruption.

Rows are kept in a journal beside the output, ``<output>.partial``: one JSON line per recording,
written as soon as it is scored. At the end the output is made from the journal, whole, and the
journal is deleted. So whatever the format, a run that was interrupted goes on where it stopped.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

from ..files import lock, replacing, require_place
from ..inference.errors import ParameterError
from .tables import Columns, Item, Level, Row, Table, columns, rows

_HOW = "run it without --resume, or name another output"


class Journal:
    """The rows of one output, while recordings are scored; use it as a context manager.

    Args:
        output: the file that is made at the end.
        table: its format.
        level: what a row is.
        labels: the emotions that the model knows.
        made_with: whatever else decides the answers, such as the ``model`` (``name/version``) and
            options; a journal that was made with something else is not continued.
        resume: continue an interrupted run, or add to a finished output.

    Raises:
        ParameterError: if the output cannot be written; on entering, if another process writes
            it, or if it cannot be continued.
        OSError: if the journal cannot be read or written.
    """

    def __init__(
        self,
        output: Path,
        table: Table,
        level: Level,
        labels: tuple[str, ...],
        made_with: Mapping[str, Any],
        *,
        resume: bool,
    ) -> None:
        require_place(output)
        self.path = output.with_name(f"{output.name}.partial")
        self.done: set[str] = set()
        self.num_failed = 0
        self._output, self._table, self._level, self._labels = output, table, level, labels
        self._columns: Columns = columns(level, labels)
        self._head = {"level": level, "columns": [*self._columns], **made_with}
        self._resume = resume
        self._open = ExitStack()

    def __enter__(self) -> "Journal":
        self._output.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(self.path, wait=False, mode=0o666))
            except BlockingIOError:
                raise ParameterError(
                    f"Another process writes {self._output}; wait for its end."
                ) from None
            size = self._read() if self._resume else 0
            self._file = stack.enter_context(self.path.open("r+b"))
            self._file.truncate(size)  # a half-written last line is dropped
            self._file.seek(size)
            if size == 0:
                stack.callback(self._discard)
                self._begin()
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def add(self, item: Item) -> None:
        """Keep the rows of one recording."""
        self._add(item.file, rows(item, self._level, self._labels))
        self._file.flush()

    def finish(self) -> None:
        """Write the output, and delete the journal.

        Raises:
            OSError: if it cannot be written; the journal stays.
        """
        self._file.flush()
        with replacing(self._output) as temporary, temporary.open("wb") as file:
            self._table.write(file, self._rows(), self._columns)
        self.path.unlink()

    def _begin(self) -> None:
        self._write(self._head)
        if self._resume and self._output.exists():
            self._take_over()
        self._file.flush()

    def _discard(self) -> None:
        """Leave no journal that holds nothing to continue."""
        if not self.done:
            self.path.unlink(missing_ok=True)

    def _read(self) -> int:
        """Read which recordings are done; return the size of all complete lines, in bytes."""
        size = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                    if size:
                        self._note(entry["file"], entry["rows"])
                    elif entry != self._head:
                        raise ParameterError(
                            f"{self.path} was begun with {_difference(entry, self._head)}; {_HOW}."
                        )
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise ParameterError(f"{self.path} is damaged; {_HOW}.") from None
                size += len(line)
        return size

    def _take_over(self) -> None:
        """Copy the rows of a finished output.

        One that was cut off elsewhere ends with a recording whose rows may not all be there; where
        a recording has several rows, the last one is therefore scored again.
        """
        try:
            found = [
                (file, list(group))
                for file, group in groupby(
                    self._table.read(self._output, self._columns), key=lambda row: str(row["file"])
                )
            ]
        except ParameterError:
            raise
        except Exception as error:  # of any of the libraries that read the formats
            raise ParameterError(f"{self._output} cannot be continued; {_HOW}.") from error
        makers = {_maker(row) for _, group in found for row in group if row["error"] is None}
        if others := makers - {self._head.get("model")}:
            raise ParameterError(f"{self._output} was made by {min(others)}; {_HOW}.")
        for file, group in found if self._level == "recording" else found[:-1]:
            self._add(file, group)

    def _add(self, file: str, found: list[Row]) -> None:
        self._note(file, found)
        self._write({"file": file, "rows": found})

    def _note(self, file: str, found: list[Row]) -> None:
        self.done.add(file)
        self.num_failed += any(row["error"] is not None for row in found)

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")

    def _rows(self) -> Iterator[Row]:
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield from json.loads(line)["rows"]


def _maker(row: Row) -> str:
    return "/".join(filter(None, (row["model"], row["version"])))


def _difference(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name the first thing in which two runs differ."""
    name = next((name for name in wanted if seen.get(name) != wanted[name]), "columns")
    return f"another {name}" if name == "columns" else f"{name} {seen.get(name)}"
