"""The files of a benchmark: CSV and Markdown by table, charts, and one page with everything."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ...service.files import replacing
from .cases import Protocol
from .charts import Chart, charts, curated, map_points
from .plan import NON_SPEECH
from .results import NESTED, Row, to_frame
from .tables import STUDIES, Table, in_order, tables_by_name

HEADINGS = {
    "main": "Transductive",
    "inductive": "Inductive",
    "ablations": "Ablations",
    **{name: title for name, (title, _) in STUDIES.items()},
    NON_SPEECH: "Not speech",
}


def write_report(
    out: Path, rows: Sequence[Row], protocol: Protocol, facts: Mapping[str, str]
) -> list[Table]:
    """Write every file.

    Args:
        out: folder.
        rows: of all tables.
        protocol: says which targets the means are over.
        facts: provenance, in every file.

    Returns:
        The tables.
    """
    frame = to_frame(rows)
    groups = tables_by_name(frame, protocol)
    for name, tables in groups.items():
        for table in tables:
            _write(out / f"{table.name}.csv", table.csv(facts))
        _write(out / f"{name}.md", render_tables(name, tables, protocol, facts))
    flat = frame.drop(columns=[name for name in NESTED if name in frame])
    _write(out / "results.csv", Table("results", "All rows", "", flat).csv(facts))
    points = map_points(curated(in_order(frame, protocol)))
    _write(out / "map.csv", Table("map", "Maps", "", points).csv(facts))
    drawn = charts(frame, protocol)
    for chart in drawn:
        _write(out / f"{chart.name}.svg", chart.svg)
    _write(out / "report.html", render_page(groups, drawn, protocol, facts))
    return [table for tables in groups.values() for table in tables]


def render_tables(
    name: str, tables: Sequence[Table], protocol: Protocol, facts: Mapping[str, str]
) -> str:
    """Markdown: the tables of one name, and their provenance."""
    template = _templates().get_template("tables.md")
    return template.render(name=name, tables=tables, protocol=protocol, facts=facts)


def render_page(
    groups: Mapping[str, Sequence[Table]],
    drawn: Sequence[Chart],
    protocol: Protocol,
    facts: Mapping[str, str],
) -> str:
    """HTML that needs no other file.

    Args:
        groups: tables by the name that ``--tables`` has for them.
        drawn: charts.
        protocol: for the title.
        facts: provenance.
    """
    source = " + ".join(protocol.source)
    return (
        _templates()
        .get_template("report.html")
        .render(
            title=f"nnpm benchmark {protocol.name}: {source} to other languages",
            groups=groups,
            headings=HEADINGS,
            charts=drawn,
            facts=facts,
        )
    )


def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
