"""One page of everything, that needs nothing else to be read."""

from collections.abc import Mapping, Sequence
from html import escape

from training.benchmark.drawing import confusion_matrix, scatter
from training.benchmark.protocol import Protocol, all_methods
from training.benchmark.results import Row
from training.benchmark.table import Table

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


def page(
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
