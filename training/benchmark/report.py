"""The files of a benchmark: CSV and Markdown by table, charts, and one page with everything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ...service.files import replacing
from .cases import Protocol
from .charts import charts, map_points
from .results import NESTED, Row, to_frame
from .tables import HEADINGS, Table, curated, in_order, tables_by_name


def write_report(
    out: Path, rows: Sequence[Row], protocol: Protocol, facts: Mapping[str, str]
) -> list[Table]:
    """Write every file.

    Args:
        out: folder.
        rows: of all tables.
        protocol: names the source, and orders the targets.
        facts: provenance, in every file.

    Returns:
        The tables.
    """
    if not rows:
        return []
    frame = to_frame(rows)
    groups = tables_by_name(frame, protocol)
    for name, tables in groups.items():
        for table in tables:
            _write(out / f"{table.name}.csv", table.csv(facts))
        text = render("tables.md", name=name, tables=tables, protocol=protocol, facts=facts)
        _write(out / f"{name}.md", text)
    flat = frame.drop(columns=[name for name in NESTED if name in frame])
    _write(out / "results.csv", Table("results", "All rows", "", flat).csv(facts))
    points = map_points(curated(in_order(frame, protocol)))
    _write(out / "map.csv", Table("map", "Maps", "", points).csv(facts))
    drawn = charts(frame, protocol)
    for chart in drawn:
        _write(out / f"{chart.name}.svg", chart.svg)
    page = render(
        "report.html",
        title=f"nnpm benchmark {protocol.name}: {' + '.join(protocol.source)} to other languages",
        groups=groups,
        headings={name: heading for name, (heading, _) in HEADINGS.items()},
        charts=drawn,
        facts=facts,
    )
    _write(out / "report.html", page)
    return [table for tables in groups.values() for table in tables]


def render(template: str, **values: Any) -> str:
    """Fill in one of the templates beside this file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
