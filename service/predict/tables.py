"""Answers as tables: rows of recordings, channels or segments, written in the formats of tables.

How to add a format: a function that writes rows into a binary file, one that reads them back, and
a row in :data:`TABLES` (for annotations see annotations.py). HTTP, command line, documentation of
the API and the test of all formats follow from the row.

A recording that cannot be scored is a row of the same columns, with ``error`` and ``detail``
filled in and all answers empty: a table loads in one step whatever happened to its recordings.
"""

import csv
import importlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from ..inference.errors import ExtraMissingError, NnpmError, ParameterError
from .annotations import ANNOTATIONS, Annotation
from .schemas import ModelPart, PredictAnswer, Verdict

Level = Literal["recording", "channel", "segment"]
"""What a row is."""

Row = dict[str, Any]
"""Values by column; each is text, a number, a truth value, or None for an empty cell."""

Columns = Mapping[str, type]
"""Names of columns in order, each with the type of its values."""


class Failure(NamedTuple):
    """Why a recording has no answer: the error's code for programs, and its sentence."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: NnpmError) -> "Failure":
        """Describe an error as a problem does."""
        return cls(error.code, error.detail or str(error))


class Item(NamedTuple):
    """A recording by its name, and what became of it; the model is that of a failure's row."""

    file: str
    outcome: PredictAnswer | Failure
    model: ModelPart | None = None


_VERDICT: Columns = {
    "emotion": str, "confidence": float, "calibrated": bool, "abstained": bool, "reasons": str,
    "out_of_domain": float,
}  # fmt: skip
_SPAN: Columns = {"channel": int, "speaker": str, "start_s": float, "end_s": float}
_SEGMENT: Columns = {"emotion": str, "confidence": float, "reasons": str}
_AUDIO: Columns = {
    "duration_s": float, "sample_rate_hz": int, "channels": int, "format": str,
    "speech_ratio": float, "warnings": str,
}  # fmt: skip
_SOURCE: Columns = {"model": str, "version": str, "language": str, "error": str, "detail": str}


def columns(level: Level, labels: Iterable[str]) -> Columns:
    """List the columns of a table.

    Args:
        level: what a row is.
        labels: the emotions that the model knows; each has a column ``score_<emotion>``.

    Examples:
        >>> list(columns("segment", ["sad"]))[:6]
        ['file', 'channel', 'speaker', 'start_s', 'end_s', 'emotion']
    """
    scores = {f"score_{label}": float for label in labels}
    match level:
        case "recording":
            return {"file": str, **_VERDICT, **scores, **_AUDIO, **_SOURCE}
        case "channel":
            return {"file": str, "channel": int, **_VERDICT, **scores, **_SOURCE}
        case "segment":
            return {"file": str, **_SPAN, **_SEGMENT, **scores, **_SOURCE}


def rows(item: Item, level: Level, labels: Iterable[str]) -> list[Row]:
    """Make the rows of one recording.

    Args:
        item: the recording.
        level: what a row is. Channels that were mixed are one channel, number 0.
        labels: as for :func:`columns`.

    Returns:
        Rows with all columns; exactly one for a recording that failed.
    """
    common: Row = {**dict.fromkeys(columns(level, labels)), "file": item.file}
    outcome = item.outcome
    model = item.model if isinstance(outcome, Failure) else outcome.model
    if model is not None:
        common |= {"model": model.name, "version": model.version, "language": model.language}
    if isinstance(outcome, Failure):
        return [{**common, "error": outcome.code, "detail": outcome.detail}]
    match level:
        case "recording":
            audio = {name: getattr(outcome.audio, name) for name in _AUDIO}
            audio["warnings"] = " ".join(outcome.audio.warnings)
            return [{**common, **_verdict(outcome), **audio}]
        case "channel":
            channels: Sequence[Verdict] = outcome.per_channel or [outcome]
            return [
                {**common, "channel": number, **_verdict(one)}
                for number, one in enumerate(channels)
            ]
        case "segment":
            return [
                {
                    **common,
                    **{name: getattr(one, name) for name in (*_SPAN, *_SEGMENT)},
                    "reasons": _joined(one.reasons),
                    **_scores(one.scores),
                }
                for one in outcome.segments
            ]


def _verdict(verdict: Verdict) -> Row:
    values: Row = {name: getattr(verdict, name) for name in _VERDICT}
    return {**values, "reasons": _joined(verdict.reasons), **_scores(verdict.scores)}


def _scores(scores: Mapping[str, float]) -> Row:
    return {f"score_{label}": score for label, score in scores.items()}


def _joined(reasons: Iterable[str]) -> str:
    return ";".join(reasons)


@dataclass(frozen=True, slots=True)
class Table:
    """A format that holds rows.

    Attributes:
        media_type: of an HTTP answer.
        suffix: of files.
        write: writes rows, which it takes one after another, into a binary file.
        read: reads them back; a half-written last row is left out where that can be seen.
        needs: the package that it needs, of the extra ``tables``; empty for none.
        holds_many: as of an annotation.
    """

    media_type: str
    suffix: str
    write: Callable[[BinaryIO, Iterable[Row], Columns], None]
    read: Callable[[Path, Columns], Iterable[Row]]
    needs: str = ""
    holds_many: bool = True


def _write_csv(file: BinaryIO, found: Iterable[Row], of: Columns) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, [*of], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    finally:
        text.detach()


def _read_csv(path: Path, of: Columns) -> Iterator[Row]:
    parse: dict[type, Callable[[str], Any]] = {bool: lambda text: text == "True"}
    with path.open(encoding="utf-8", newline="") as file:
        complete = io.StringIO(_complete_lines(file.read()), newline="")
    reader = csv.DictReader(complete)
    _require_columns(path, reader.fieldnames or (), of)
    for row in reader:
        values = ((name, row[name], parse.get(kind, kind)) for name, kind in of.items())
        yield _restored({name: read(text) if text else None for name, text, read in values})


def _write_jsonl(file: BinaryIO, found: Iterable[Row], _: Columns) -> None:
    for row in found:
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _read_jsonl(path: Path, of: Columns) -> Iterator[Row]:
    for line in _complete_lines(path.read_text("utf-8")).splitlines():
        row = json.loads(line)
        _require_columns(path, row, of)
        yield row


def _complete_lines(text: str) -> str:
    """All lines up to the last end of a line."""
    return text[: text.rfind("\n") + 1]


def _require_columns(path: Path, seen: Iterable[str], of: Columns) -> None:
    if list(seen) != list(of):
        raise ParameterError(
            f"{path} has other columns than this level and model give; name another output."
        )


def _restored(row: Row) -> Row:
    """A row as it was made, from a format in which empty text and no text are the same."""
    if row["error"] is None:
        row |= {name: row[name] or "" for name in ("reasons", "warnings") if name in row}
    return row


def _groups(found: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Rows in groups of at most ``size``; one empty group if there are none."""
    rest = iter(found)
    group = list(islice(rest, size))
    yield group
    while group := list(islice(rest, size)):
        yield group


_ROWS_A_GROUP = 10_000


def arrow_schema(of: Columns) -> Any:
    """Make the Arrow schema of a table; pyarrow must be there."""
    import pyarrow

    kinds = {
        str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_()
    }  # fmt: skip
    return pyarrow.schema([(name, kinds[kind]) for name, kind in of.items()])


def _write_parquet(file: BinaryIO, found: Iterable[Row], of: Columns) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = arrow_schema(of)
    with parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(found, _ROWS_A_GROUP):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _read_parquet(path: Path, of: Columns) -> Iterator[Row]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        _require_columns(path, file.schema_arrow.names, of)
        for group in file.iter_batches():
            yield from group.to_pylist()


_SHEET_ROWS = 1_048_576
"""Rows of a sheet that Excel opens, the header among them."""

_CELL_CHARACTERS = 32_767


def _write_xlsx(file: BinaryIO, found: Iterable[Row], of: Columns) -> None:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = ILLEGAL_CHARACTERS_RE.sub("\ufffd", value)[:_CELL_CHARACTERS]
        made = WriteOnlyCell(sheet, text)
        made.data_type = "s"  # a name that begins with = is no formula
        return made

    for number, group in enumerate(_groups(found, _SHEET_ROWS - 1), 1):
        sheet = book.create_sheet(f"answers {number}")
        sheet.freeze_panes = "B2"
        sheet.column_dimensions["A"].width = 40
        sheet.append([*of])
        for row in group:
            sheet.append([cell(row[name]) for name in of])
    book.save(file)


def _read_xlsx(path: Path, of: Columns) -> Iterator[Row]:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True)
    try:
        for sheet in book.worksheets:
            lines = sheet.iter_rows(values_only=True)
            _require_columns(path, next(lines, ()), of)
            for line in lines:
                # cells at the end that are empty are not there
                yield _restored({**dict.fromkeys(of), **dict(zip(of, line, strict=False))})
    finally:
        book.close()


TABLES = {
    "csv": Table("text/csv", ".csv", _write_csv, _read_csv),
    "jsonl": Table("application/x-ndjson", ".jsonl", _write_jsonl, _read_jsonl),
    "parquet": Table(
        "application/vnd.apache.parquet", ".parquet", _write_parquet, _read_parquet, "pyarrow"
    ),
    "xlsx": Table(
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".xlsx",
        _write_xlsx,
        _read_xlsx,
        "openpyxl",
    ),
}

FORMATS: dict[str, Table | Annotation] = {**TABLES, **ANNOTATIONS}
"""Every format besides JSON, by its name in ``format=`` and ``--format``."""


def known_format(name: str) -> str:
    """Check the name of a format, json among them.

    Raises:
        ValueError: if there is no such format.
    """
    if name != "json" and name not in FORMATS:
        raise ValueError(f"format is {name[:64]!r}; it must be {_listed(['json', *FORMATS])}.")
    return name


def require_format(name: str, *, many: bool) -> None:
    """Check, before anything is scored, that answers can be written in a format.

    Args:
        name: of a format, or json.
        many: whether several recordings go into one answer.

    Raises:
        ParameterError: if the format holds one recording, and there may be more.
        ExtraMissingError: if what it needs is not installed.
    """
    if name == "json":
        return
    form = FORMATS[name]
    if many and not form.holds_many:
        others = _listed([other for other, one in FORMATS.items() if one.holds_many])
        raise ParameterError(
            f"format is {name}, which holds one recording; send one to /predict, or take {others}."
        )
    if isinstance(form, Table) and form.needs:
        try:
            importlib.import_module(form.needs)
        except ImportError:
            raise ExtraMissingError(
                f"The format {name} needs {form.needs}, which is not installed; install the extra "
                "'tables': pip install 'nnpm[tables]'."
            ) from None


def render(name: str, items: Sequence[Item], level: Level, labels: Iterable[str]) -> bytes:
    """Write answers in a format other than JSON.

    Args:
        name: of the format.
        items: the recordings; those that failed are missing from an annotation.
        level: what a row of a table is.
        labels: as for :func:`columns`.
    """
    form = FORMATS[name]
    if isinstance(form, Annotation):
        scored = [(one.file, one.outcome) for one in items if not isinstance(one.outcome, Failure)]
        return "".join(form.write(file, answer) for file, answer in scored).encode()
    file, known = io.BytesIO(), list(labels)
    found = (row for item in items for row in rows(item, level, known))
    form.write(file, found, columns(level, known))
    return file.getvalue()


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
