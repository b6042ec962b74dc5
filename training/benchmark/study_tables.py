"""The tables of the ablations and of the studies."""

from collections.abc import Sequence

from training.benchmark.ablations import WHOLE
from training.benchmark.grid import Grid, Label, figure
from training.benchmark.main_tables import in_order
from training.benchmark.protocol import Protocol
from training.benchmark.results import Row
from training.benchmark.table import Table, spread

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
