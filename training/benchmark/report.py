"""Drawings as inline SVG, by hand: they need no library, and the page no other file.

One page of everything, that needs nothing else to be read.

All files of a benchmark: CSV and Markdown by table, one page of everything.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ...service.files import replacing
from ...service.inference.card import CORE_EMOTIONS
from .cases import Protocol, all_methods
from .plan import STRANGE, TABLES
from .results import KEY, Row
from .tables import Table, ablation_tables, listing, method_tables, strange_tables, study_tables

COLOURS = {"angry": "#d55e00", "happy": "#e69f00", "neutral": "#7f7f7f", "sad": "#0072b2"}
"""Okabe and Ito's, which the colour-blind tell apart."""

_CELL, _MARGIN = 52, 64
_SIDE = 320


def confusion_matrix(counts: Sequence[Sequence[int]]) -> str:
    """Truth by row, answer by column; each cell's share of its row as shade and number."""
    side = _MARGIN + _CELL * len(counts)
    parts = [_open(side, side)]
    for i, row in enumerate(counts):
        parts.append(_svg_text(_MARGIN - 6, _MARGIN + _CELL * (i + 0.55), CORE_EMOTIONS[i], "end"))
        middle = _MARGIN + _CELL * (i + 0.5)
        parts.append(_svg_text(middle, _MARGIN - 8, CORE_EMOTIONS[i], "middle"))
        for j, count in enumerate(row):
            share = count / max(1, sum(row))
            x, y = _MARGIN + _CELL * j, _MARGIN + _CELL * i
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="#0072b2" '
                f'fill-opacity="{share:.2f}" stroke="#ccc"><title>{count} clips</title></rect>'
            )
            colour = "#fff" if share > 0.6 else "#000"
            centre = x + _CELL / 2, y + _CELL * 0.57
            parts.append(_svg_text(*centre, f"{share:.2f}", "middle", colour))
    return "".join([*parts, "</svg>"])


def scatter(points: Sequence[Sequence[float]], emotion: Sequence[str]) -> str:
    """Points in the plane, coloured by emotion; both axes have the same scale."""
    middle = [(min(axis) + max(axis)) / 2 for axis in zip(*points, strict=True)]
    reach = max(1e-6, *(abs(v - m) for p in points for v, m in zip(p, middle, strict=True)))
    scale = (_SIDE / 2 - 8) / reach
    parts = [_open(_SIDE, _SIDE + 20)]
    parts.append(f'<rect width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#ccc"/>')
    for (x, y), name in zip(points, emotion, strict=True):
        across, down = _SIDE / 2 + (x - middle[0]) * scale, _SIDE / 2 - (y - middle[1]) * scale
        parts.append(
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{COLOURS[name]}" '
            'fill-opacity="0.7"/>'
        )
    for place, (name, colour) in enumerate(COLOURS.items()):
        parts.append(_svg_text(80 * place + 4, _SIDE + 15, name, "start", colour))
    return "".join([*parts, "</svg>"])


def _open(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">'
    )


def _svg_text(x: float, y: float, text: str, anchor: str, colour: str = "#000") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem }
table { border-collapse: collapse; display: block; overflow-x: auto; margin-bottom: 2rem }
th, td { border-bottom: 1px solid #ccc; padding: .2rem .7rem; text-align: left }
td { white-space: nowrap }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }
figcaption { font-weight: 600 }
"""

_TITLES = {
    "main": "Transductive",
    "inductive": "Inductive",
    "ablations": "Ablations",
    "curve": "Learning curve",
    "shift": "Label shift",
    "degraded": "Telephone and noise",
    "strange": "Not speech",
}


def render_page(
    groups: Mapping[str, Sequence[Table]],
    rows: Sequence[Row],
    protocol: Protocol,
    facts: Mapping[str, str],
) -> str:
    """HTML with its style and drawings inside.

    Args:
        groups: tables by their group.
        rows: of which the first seed's main rows are drawn.
        protocol: for the title.
        facts: provenance.
    """
    title = f"nnpm benchmark {protocol.name}: {' + '.join(protocol.source)} to other languages"
    sections = [
        f"<h2>{escape(_TITLES[name])}</h2>\n" + "".join(table.html() for table in tables)
        for name, tables in groups.items()
    ]
    main = [row for row in rows if row["table"] == "main" and row["condition"] == "curated"]
    told = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in facts.items())
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<ul>{told}</ul>\n"
        + "".join(sections)
        + _confusions(main)
        + _maps(main)
        + "</body>\n</html>\n"
    )


def _confusions(rows: Sequence[Row]) -> str:
    """Clips of all seeds together."""
    if not rows:
        return ""
    parts = ["<h2>Confusion matrices</h2>\n<p>Shares of each emotion's clips, all seeds.</p>\n"]
    for target in dict.fromkeys(row["target"] for row in rows):
        parts.append(f"<h3>{escape(target)}</h3>\n")
        for method in all_methods():
            own = [r["confusion"] for r in rows if (r["target"], r["method"]) == (target, method)]
            if own:
                total = [
                    [sum(cell) for cell in zip(*row, strict=True)] for row in zip(*own, strict=True)
                ]
                parts.append(_figure(method, confusion_matrix(total)))
    return "".join(parts)


def _maps(rows: Sequence[Row]) -> str:
    """The first seed, as trained and after the best known method."""
    drawn = {(row["target"], row["method"]): row["map"] for row in rows if row["map"]}
    if not drawn:
        return ""
    parts = [
        "<h2>Maps of the target</h2>\n<p>The first two principal components of z, before and after "
        "adaptation; seed 0; colours are the true emotions. Each map has axes of its own.</p>\n"
    ]
    for target in dict.fromkeys(target for target, _ in drawn):
        parts.append(f"<h3>{escape(target)}</h3>\n")
        there = [method for method in all_methods() if (target, method) in drawn]
        shown = [m for m in ("source_only", "adabn") if m in there]
        for method in dict.fromkeys([*shown[:1], *there[-1:]]):
            parts.append(_figure(method, scatter(**drawn[target, method])))
    return "".join(parts)


def _figure(caption: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}</figure>\n"


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
    _write(out / "report.html", render_page(groups, rows, protocol, facts))
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
