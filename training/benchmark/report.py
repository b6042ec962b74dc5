"""All files of a benchmark: CSV and Markdown by table, one page of everything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.benchmark.main_tables import method_tables
from training.benchmark.page import page
from training.benchmark.plan import STRANGE, TABLES
from training.benchmark.protocol import Protocol
from training.benchmark.results import KEY, Row
from training.benchmark.study_tables import ablation_tables, strange_tables, study_tables
from training.benchmark.table import Table, listing
from training.replacing import replacing

_LEFT_OUT = {"recall", "confusion", "speakers", "map", "gated", "evidence", "reasons"}


def write_report(
    out: Path, rows: Sequence[Row], protocol: Protocol, facts: Mapping[str, str]
) -> list[Table]:
    """Write every file.

    Args:
        out: folder.
        rows: of all tables.
        protocol: tells what the means are of.
        facts: provenance, in every file.

    Returns:
        The tables.
    """
    groups = {name: _tables(name, rows, protocol) for name in TABLES}
    groups = {name: tables for name, tables in groups.items() if tables}
    for name, tables in groups.items():
        for table in tables:
            _write(out / f"{table.name}.csv", table.csv(facts))
        parts = [f"# {protocol.name}: {name}", *(table.markdown() for table in tables)]
        _write(out / f"{name}.md", "\n\n".join([*parts, listing(facts)]) + "\n")
    _write(out / "results.csv", _flat(rows).csv(facts))
    _write(out / "report.html", page(groups, rows, protocol, facts))
    return [table for tables in groups.values() for table in tables]


def _tables(name: str, rows: Sequence[Row], protocol: Protocol) -> list[Table]:
    own = [row for row in rows if row["table"] == name]
    if not own:
        return []
    if name in ("main", "inductive"):
        return method_tables(name, own, protocol)
    if name == "ablations":
        return ablation_tables(own, protocol)
    return strange_tables(own) if name == STRANGE else study_tables(name, own, protocol)


def _flat(rows: Sequence[Row]) -> Table:
    """One line for each row, one column for each figure that is a number or a word."""
    flat = [_flatten(row) for row in rows]
    rest = sorted({name for row in flat for name in row} - set(KEY))
    header = (*KEY, *rest)
    cells = tuple(tuple(_text(row.get(name)) for name in header) for row in flat)
    return Table("results", "All rows", "", header, cells)


def _flatten(row: Row) -> dict[str, Any]:
    flat = {name: value for name, value in row.items() if name not in _LEFT_OUT}
    flat |= {f"gated_{name}": value for name, value in row.get("gated", {}).items()}
    flat |= {f"recall_{name}": value for name, value in row.get("recall", {}).items()}
    for name in row["evidence"][0]:
        values = [figures[name] for figures in row["evidence"]]
        flat[f"evidence_{name}"] = sum(values) / len(values)
    return flat


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
