"""The tables of every method on every target, transductive or inductive."""

from collections.abc import Callable, Sequence

from service.inference.labels import CORE_EMOTIONS
from training.benchmark.cases import UNCURATED
from training.benchmark.grid import Figure, Grid, Label, figure
from training.benchmark.interval import interval
from training.benchmark.protocol import Protocol, all_methods
from training.benchmark.results import Row
from training.benchmark.table import Table, spread

_FIGURES: tuple[tuple[str, str, Figure], ...] = (
    ("uar", "UAR", figure("uar")),
    ("wa", "WA", figure("wa")),
    ("macro_f1", "Macro F1", figure("macro_f1")),
    ("ece", "ECE", figure("ece")),
    ("coverage", "Coverage", figure("coverage")),
    ("answered", "WA of the answered", figure("wa_answered")),
    ("gated-uar", "UAR, gated", figure("uar", "gated")),
    ("gated-wa", "WA, gated", figure("wa", "gated")),
    ("valence-uar", "Valence, UAR", figure("valence_uar")),
    ("valence-wa", "Valence, WA", figure("valence_wa")),
)

_NOTES = {
    "gated": "Where the verdict is reject, the base answers.",
    "valence": "Positive: happy, neutral, calm, surprise; negative: angry, sad, fear, disgust.",
    "coverage": "Share of the clips that the service would answer.",
    "ece": "15 bins of equal width; lower is better.",
}


def method_tables(name: str, rows: Sequence[Row], protocol: Protocol) -> list[Table]:
    """All tables of one set of rows.

    Args:
        name: main or inductive; the CSV files' names begin so.
        rows: of this table.
        protocol: tells what the means are of.
    """
    rows = in_order(rows)
    tables = [
        _figure_table(f"{name}-{stem}", title, rows, protocol, read)
        for stem, title, read in _FIGURES
    ]
    tables += [_recalls(name, rows), _cost(name, rows), _verdicts(name, rows)]
    tables += [_estimates(name, rows), _intervals(name, rows)]
    return [table for table in tables if table.rows]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows by method, the one that is tried last, and by seed."""
    order = all_methods()
    return sorted(rows, key=lambda row: (order.index(row["method"]), row["seed"]))


def column(row: Row) -> str:
    """The target, and that all its clips were adapted to."""
    return f"{row['target']} ({UNCURATED})" if row["condition"] == UNCURATED else row["target"]


def _by_method(row: Row) -> Label:
    return (row["method"],)


def _figure_table(
    name: str, title: str, rows: Sequence[Row], protocol: Protocol, read: Figure
) -> Table:
    named = [{**row, "target": column(row)} for row in rows]
    targets = list(dict.fromkeys(row["target"] for row in sorted(named, key=_place(protocol))))
    headline = [t for t in targets if "(" not in t and t not in protocol.outside]
    others = [target for target in headline if target not in protocol.whole]
    grid = Grid.of(named, _by_method, targets, read)
    cells = [
        (
            *label,
            *(grid.cell(label, target) for target in targets),
            spread(grid.means(label, headline)),
            spread(grid.means(label, others)),
            grid.least_gain(label, ("source_only",)),
        )
        for label in grid.labels()
    ]
    notes = [note for word, note in _NOTES.items() if word in name]
    note = (
        "Mean ± standard deviation over the seeds. The means are over "
        f"{', '.join(headline) or 'nothing: no target of the means is here'}; least gain: the "
        "worst difference to source_only on any target, any seed."
    )
    without = f"mean without {', '.join(protocol.whole)}"
    header = ("method", *targets, "mean", without, "least gain")
    return Table(name, title, " ".join([note, *notes]), header, tuple(cells))


def _place(protocol: Protocol) -> Callable[[Row], tuple[bool, int, str]]:
    def place(row: Row) -> tuple[bool, int, str]:
        name = row["target"].split(" ")[0]
        known = name in protocol.targets
        return "(" in row["target"], protocol.targets.index(name) if known else 99, name

    return place


def _recalls(name: str, rows: Sequence[Row]) -> Table:
    keys = dict.fromkeys((column(row), row["method"]) for row in rows)
    cells = []
    for target, method in sorted(keys, key=lambda key: key[0]):
        own = [row["recall"] for row in rows if (column(row), row["method"]) == (target, method)]
        recalls = (spread([recall.get(e) for recall in own]) for e in CORE_EMOTIONS)
        cells.append((target, method, *recalls))
    header = ("target", "method", *CORE_EMOTIONS)
    return Table(f"{name}-recall", "Recall by emotion", "Over the seeds.", header, tuple(cells))


def _cost(name: str, rows: Sequence[Row]) -> Table:
    cells = []
    for target, method in sorted(dict.fromkeys((column(r), r["method"]) for r in rows)):
        own = [row for row in rows if (column(row), row["method"]) == (target, method)]
        clips = max(sum(row["adapted_clips"]) for row in own)
        spreads = [spread([r[n] for r in own], 1) for n in ("seconds", "rise_mib")]
        cells.append((target, method, str(clips), *spreads))
    note = (
        "One thread. Seconds of adapt_head, on features that are there. Memory: by how much the "
        "resident set rose at most, as Linux tells it; what the process had freed before and took "
        "again does not show."
    )
    header = ("target", "method", "clips", "seconds", "memory, MiB")
    return Table(f"{name}-cost", "Time and memory", note, header, tuple(cells))


def _verdicts(name: str, rows: Sequence[Row]) -> Table:
    cells = []
    for target, method in sorted(dict.fromkeys((column(r), r["method"]) for r in rows)):
        own = [row for row in rows if (column(row), row["method"]) == (target, method)]
        given = [verdict for row in own for verdict in row["verdict"]]
        counts = (str(given.count(v)) for v in ("improved", "no change", "reject"))
        cells.append((target, method, *counts))
    header = ("target", "method", "improved", "no change", "reject")
    return Table(f"{name}-verdicts", "Verdicts", "Adaptations, counted.", header, tuple(cells))


def _estimates(name: str, rows: Sequence[Row]) -> Table:
    """Only where adapted and scored clips are the same."""
    told = [row for row in rows if row["estimated"] is not None and row["condition"] == "curated"]
    cells = []
    for method in dict.fromkeys(row["method"] for row in told):
        own = [row for row in told if row["method"] == method]
        for target in dict.fromkeys(row["target"] for row in own):
            here = [row for row in own if row["target"] == target]
            cells.append((method, target, *_estimate_cells(here)))
        cells.append((method, "all", *_estimate_cells(own)))
    note = (
        "The estimate without labels beside the truth: accuracy among the four emotions (WA), and "
        "where any emotion may be answered. Error: mean absolute difference to WA."
    )
    header = ("method", "target", "estimated", "WA", "any emotion", "stated error", "error")
    return Table(f"{name}-estimates", "Estimated accuracy", note, header, tuple(cells))


def _estimate_cells(rows: Sequence[Row]) -> list[str]:
    errors = [abs(row["estimated"] - row["wa"]) for row in rows]
    names = ("estimated", "wa", "wa_open", "estimated_error")
    return [*(spread([row[name] for row in rows]) for name in names), f"{_mean(errors):.3f}"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _intervals(name: str, rows: Sequence[Row]) -> Table:
    cells = []
    for target in dict.fromkeys(column(row) for row in rows if row["method"] == "nnpm"):
        own = [row for row in rows if row["method"] == "nnpm" and column(row) == target]
        found = interval([row["speakers"] for row in own])
        values = [spread([row[name] for row in own]) for name in ("uar", "wa")]
        limits = [f"{low:.3f} to {high:.3f}" for low, high in found] if found else ["-", "-"]
        speakers = str(len(own[0]["speakers"]))
        cells.append((target, speakers, values[0], limits[0], values[1], limits[1]))
    note = (
        "95 % interval of the mean over the seeds: speakers drawn with replacement, 2000 times, "
        "the same ones for all seeds."
    )
    header = ("target", "speakers", "UAR", "UAR, 95 %", "WA", "WA, 95 %")
    return Table(f"{name}-intervals", "nnpm with its interval", note, header, tuple(cells))
