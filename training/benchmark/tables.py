"""A table, and how it is written.

Figures by row of a table, target and seed; their means over targets and gains.

The tables of every method on every target, transductive or inductive.

The tables of the ablations and of the studies.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ...service.inference.card import CORE_EMOTIONS
from .cases import UNCURATED, Protocol, all_methods
from .plan import WHOLE
from .results import Row, bootstrap_interval


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text.

    Attributes:
        name: of its CSV file, without ending.
        title: what it shows.
        note: how to read it.
        header: of the columns.
        rows: as long as the header.
    """

    name: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def csv(self, facts: Mapping[str, str]) -> str:
        """Comma-separated, after one line of provenance that begins with #."""
        text = io.StringIO()
        text.write("# " + "; ".join(f"{name}: {value}" for name, value in facts.items()) + "\n")
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """A heading, the note and the table.

        Examples:
            >>> print(Table("t", "T", "N.", ("a", "b"), (("1", "2"),)).markdown())
            ## T
            <BLANKLINE>
            N.
            <BLANKLINE>
            | a | b |
            | --- | --- |
            | 1 | 2 |
        """
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"## {self.title}\n\n{self.note}\n\n{table}"

    def html(self) -> str:
        """A heading, the note and the table."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return (
            f"<h3>{escape(self.title)}</h3>\n<p>{escape(self.note)}</p>\n"
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n"
        )


def listing(facts: Mapping[str, str]) -> str:
    """Provenance as Markdown."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean ± sample standard deviation; the mean alone of one value, a dash of none.

    Examples:
        >>> spread([0.5, 0.7]), spread([0.5]), spread([])
        ('0.600 ± 0.141', '0.500', '-')
    """
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    mean = sum(found) / len(found)
    if len(found) == 1:
        return f"{mean:.{digits}f}"
    deviation = (sum((value - mean) ** 2 for value in found) / (len(found) - 1)) ** 0.5
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


Figure = Callable[[Row], float | None]

Label = tuple[str, ...]
"""What stands at the left of a row of a table."""


def figure(name: str, part: str | None = None) -> Figure:
    """Reads ``row[name]``, or ``row[part][name]``."""

    def read(row: Row) -> float | None:
        value: float | None = (row if part is None else row[part])[name]
        return value

    return read


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """One figure of many rows.

    Attributes:
        values: by label, target and seed.
        targets: columns, in order.
    """

    values: dict[tuple[Label, str, int], float]
    targets: tuple[str, ...]

    @classmethod
    def of(
        cls,
        rows: Iterable[Row],
        label: Callable[[Row], Label],
        targets: Sequence[str],
        read: Figure,
    ) -> "Grid":
        """Collect ``read(row)`` where it is there."""
        found = {(label(row), row["target"], row["seed"]): read(row) for row in rows}
        return cls({k: v for k, v in found.items() if v is not None}, tuple(targets))

    def labels(self) -> list[Label]:
        """In the order in which they were met."""
        return list(dict.fromkeys(label for label, _, _ in self.values))

    def seeds(self) -> list[int]:
        """All that there are."""
        return sorted({seed for _, _, seed in self.values})

    def cell(self, label: Label, target: str) -> str:
        """Mean ± deviation over the seeds."""
        return spread([self.values.get((label, target, seed)) for seed in self.seeds()])

    def means(self, label: Label, targets: Sequence[str]) -> list[float]:
        """Mean over targets, one per seed that has them all."""
        found = []
        for seed in self.seeds():
            values = [self.values.get((label, target, seed)) for target in targets]
            if values and None not in values:
                found.append(sum(v for v in values if v is not None) / len(values))
        return found

    def gains(self, label: Label, base: Label) -> list[float]:
        """``label`` minus ``base`` on every target and seed that has both."""
        pairs = [
            (self.values.get((label, target, seed)), self.values.get((base, target, seed)))
            for target in self.targets
            for seed in self.seeds()
        ]
        return [new - old for new, old in pairs if new is not None and old is not None]

    def least_gain(self, label: Label, base: Label) -> str:
        """The worst that happened to a target with any seed."""
        gains = self.gains(label, base)
        return f"{min(gains):+.3f}" if gains else "-"


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
        found = bootstrap_interval([row["speakers"] for row in own])
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


_TITLES = {
    "curve": ("Learning curve", "Adapted to so many random clips, scored on all."),
    "shift": ("Label shift", "One emotion absent, or 70 % of the clips; scored on those clips."),
    "degraded": ("Telephone and noise", "8 kHz and mu-law; pink noise 10 dB below the speech."),
}


def study_tables(name: str, rows: Sequence[Row], protocol: Protocol) -> list[Table]:
    """UAR and WA by condition and method, ungated and gated."""
    title, note = _TITLES[name]
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    rows = sorted(in_order(rows), key=lambda row: conditions.index(row["condition"]))
    targets = _targets(rows, protocol)
    tables = []
    for stem, kind, read in (
        ("uar", "UAR", figure("uar")),
        ("wa", "WA", figure("wa")),
        ("gated-uar", "UAR, gated", figure("uar", "gated")),
    ):
        grid = Grid.of(rows, lambda row: (row["condition"], row["method"]), targets, read)
        cells = []
        for label in grid.labels():
            there = [t for t in targets if grid.cell(label, t) != "-"]
            cells.append(
                (
                    *label,
                    *(grid.cell(label, target) for target in targets),
                    spread(grid.means(label, [t for t in there if t not in protocol.outside])),
                    grid.least_gain(label, (label[0], "source_only")),
                )
            )
        told = (
            f"{note} Mean ± standard deviation over the seeds; the mean is over the targets that "
            "have a figure; least gain: the worst difference to source_only."
        )
        header = ("condition", "method", *targets, "mean", "least gain")
        tables.append(Table(f"{name}-{stem}", f"{title}: {kind}", told, header, tuple(cells)))
    return tables


def ablation_tables(rows: Sequence[Row], protocol: Protocol) -> list[Table]:
    """What every switch of nnpm gives, one at a time."""
    rows = sorted(rows, key=lambda row: int(row["seed"]))
    targets = _targets(rows, protocol)
    headline = [target for target in targets if target not in protocol.outside]
    tables = []
    for stem, kind in (("uar", "UAR"), ("wa", "WA"), ("ece", "ECE")):
        grid = Grid.of(rows, _by_variant, targets, figure(stem))
        whole = grid.means((WHOLE,), headline)
        cells = []
        for label in grid.labels():
            means = grid.means(label, headline)
            paired = [new - old for new, old in zip(means, whole, strict=False)]
            cells.append(
                (
                    *label,
                    *(grid.cell(label, target) for target in targets),
                    spread(means),
                    f"{sum(paired) / len(paired):+.3f}" if paired else "-",
                    grid.least_gain(label, (WHOLE,)),
                )
            )
        note = (
            "nnpm without one of its parts. Mean ± standard deviation over the seeds; change: of "
            "the mean, against the whole method."
        )
        header = ("without", *targets, "mean", "change", "worst change")
        tables.append(Table(f"ablations-{stem}", f"Ablations: {kind}", note, header, tuple(cells)))
    return tables


def strange_tables(rows: Sequence[Row]) -> list[Table]:
    """Verdicts on folders without speech."""
    verdicts = ("refused", "reject", "no change", "improved")
    cells = []
    for target, method in dict.fromkeys((row["target"], row["method"]) for row in in_order(rows)):
        own = [row for row in rows if (row["target"], row["method"]) == (target, method)]
        given = [verdict for row in own for verdict in row["verdict"]]
        counts = (str(given.count(verdict)) for verdict in verdicts)
        accepted = spread([row["accepted"] for row in own], 0)
        cells.append((target, method, str(own[0]["clips"]), accepted, *counts))
    note = (
        "What is said of sounds that are no speech. Accepted: taken for speech; refused: too few "
        "of them. Verdicts are counted over the seeds."
    )
    header = ("target", "method", "sounds", "accepted", *verdicts)
    return [Table("strange-verdicts", "Not speech", note, header, tuple(cells))]


def _by_variant(row: Row) -> Label:
    return (row["variant"],)


def _targets(rows: Sequence[Row], protocol: Protocol) -> list[str]:
    found = {row["target"] for row in rows}
    known = [target for target in protocol.targets if target in found]
    return [*known, *sorted(found - set(known))]
