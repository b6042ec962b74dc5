"""The tables of a benchmark: groups and pivots of one data frame, written as mean ± deviation.

Every function takes the frame of :func:`nnpm.training.benchmark.results.to_frame`, or the part of
it that belongs to one table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...service.inference.card import CORE_EMOTIONS
from ..evaluation import bootstrap_interval
from .cases import CURATED, UNCURATED, Protocol, all_methods
from .plan import TABLES, WHOLE

SEEDS = "Mean ± standard deviation over the seeds."
LOSS = 0.02
"""A run that loses more UAR than this is a loser; one that gains any, a winner."""

FIGURES = {
    "uar": ("uar", "UAR", ""),
    "wa": ("wa", "WA", ""),
    "macro_f1": ("macro_f1", "Macro F1", ""),
    "ece": ("ece", "ECE", "15 bins of equal width; lower is better."),
    "gated-uar": ("gated_uar", "UAR, gated", "Where the verdict is reject, the base answers."),
    "gated-wa": ("gated_wa", "WA, gated", "Where the verdict is reject, the base answers."),
    "valence-uar": ("valence_uar", "Valence, UAR", "Positive: happy, neutral, calm, surprise."),
    "valence-wa": ("valence_wa", "Valence, WA", "Positive: happy, neutral, calm, surprise."),
}
"""File, column of the frame, title and note of the figures that stand by method and target."""

HEADINGS = {
    "main": ("Transductive", "Adapted to all clips, scored on the same."),
    "inductive": ("Inductive", "Adapted to half of the speakers, scored on the other, both ways."),
    "shift": ("Label shift", "One emotion absent, or 70 % of the clips; scored on those clips."),
    "curve": ("Few clips", "Adapted to so many random clips, scored on all."),
    "degraded": ("Degraded", "A telephone's band; noise 10 dB below the speech; a room's echo."),
    "labels": ("A few labels", "Labels of so many random clips, scored on the others."),
    "ablations": ("Ablations", "nnpm with one of its parts changed, one at a time."),
}
"""Heading and note of each table, by the name that ``--tables`` has for it."""

_FULL = ("main", "inductive")
_STUDY_FIGURES = ("uar", "wa", "ece", "gated-uar")
_ROWS = {"main": ["method"], "inductive": ["method"], "ablations": ["variant"]}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Cells of text.

    Attributes:
        name: of its CSV file, without the suffix.
        title: heading.
        note: how to read it.
        frame: columns with their titles, rows in order.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame

    def csv(self, facts: Mapping[str, str]) -> str:
        """Comma-separated, after one line of provenance that starts with #."""
        first = "# " + "; ".join(f"{name}: {value}" for name, value in facts.items())
        return f"{first}\n{self.frame.to_csv(index=False, float_format='%.6g')}"

    def html(self) -> str:
        """The cells as an HTML table."""
        return str(self.frame.to_html(index=False, border=0, justify="left"))

    def markdown(self) -> str:
        """The cells as a Markdown table.

        Examples:
            >>> print(Table("t", "T", "N.", pd.DataFrame({"a": ["1"], "b": ["2"]})).markdown())
            | a | b |
            | --- | --- |
            | 1 | 2 |
        """
        lines = [self.frame.columns, ["---"] * self.frame.shape[1], *self.frame.to_numpy()]
        return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """Mean ± sample standard deviation; for one value the mean alone, for none a dash.

    Examples:
        >>> spread([0.5, 0.7]), spread([0.5]), spread([None])
        ('0.600 ± 0.141', '0.500', '-')
    """
    found = pd.Series(list(values), dtype=float).dropna()
    if found.empty:
        return "-"
    mean = f"{found.mean():.{digits}f}"
    return mean if len(found) == 1 else f"{mean} ± {found.std():.{digits}f}"


def tables_by_name(frame: pd.DataFrame, protocol: Protocol) -> dict[str, list[Table]]:
    """All tables, by the name that ``--tables`` has for them; only those that have rows."""
    frame = in_order(frame, protocol)
    found: dict[str, list[Table]] = {}
    for name in TABLES:
        rows = frame[frame["table"] == name]
        if not rows.empty:
            tables = make_tables(name, rows, protocol)
            found[name] = [table for table in tables if not table.frame.empty]
    return found


def in_order(frame: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Name the uncurated targets apart, and give targets, conditions and methods their order.

    Groups and pivots of the result come by target as the protocol names them, other targets and
    then uncurated ones last, and by method, ``nnpm`` last.
    """
    uncurated = frame["condition"] == UNCURATED
    targets = frame["target"].astype(str).where(~uncurated, frame["target"] + f" ({UNCURATED})")
    known = list(dict.fromkeys((*protocol.targets, *protocol.development)))

    def place(target: str) -> tuple[bool, int, str]:
        name = target.split(" (")[0]
        return UNCURATED in target, known.index(name) if name in known else len(known), name

    order = sorted(targets.unique(), key=place)
    return frame.assign(
        target=pd.Categorical(targets, order),
        method=pd.Categorical(frame["method"], all_methods(frame["method"])),
        condition=pd.Categorical(frame["condition"], frame["condition"].unique()),
        variant=pd.Categorical(frame["variant"], frame["variant"].unique()),
    )


def make_tables(name: str, frame: pd.DataFrame, protocol: Protocol) -> list[Table]:
    """The tables of one name: figures by method and target, as served, verdicts, estimates.

    Args:
        name: in :data:`nnpm.training.benchmark.plan.TABLES`.
        frame: its rows, :func:`in_order`.
        protocol: says which targets cannot carry a mean alone.
    """
    rows = _ROWS.get(name, ["condition", "method"])
    stems = FIGURES if name in _FULL else _STUDY_FIGURES
    tables = [figure_table(name, stem, frame, rows, protocol) for stem in stems]
    tables.append(right_table(name, frame, rows))
    tables.append(served_table(name, frame, rows))
    if name != "ablations":
        tables += [_verdicts(name, frame), _estimates(name, frame)]
    if name in _FULL:
        tables += [_recalls(name, frame), _confusions(name, frame)]
        tables += [_intervals(name, frame), _cost(name, frame)]
    return tables


def figure_table(
    name: str, stem: str, frame: pd.DataFrame, rows: list[str], protocol: Protocol
) -> Table:
    """One figure by ``rows`` and target, with its means, and the worst difference to the base."""
    heading, note = HEADINGS[name]
    column, title, own_note = FIGURES[stem]
    wide = by_seed(frame, rows, column)
    headline = headline_targets(frame)
    cells = _over_seeds(wide)
    mean = _mean(wide, headline)
    cells["mean"] = _over_seeds(mean)
    if whole := [target for target in headline if target in protocol.whole]:
        others = [target for target in headline if target not in whole]
        cells[f"mean without {', '.join(whole)}"] = _over_seeds(_mean(wide, others))
    notes = [note, SEEDS, own_note]
    if rows == ["variant"]:
        whole_mean = mean[mean.index.get_level_values("variant") == WHOLE].droplevel("variant")
        change = mean - whole_mean.reindex(mean.index.droplevel("variant")).set_axis(mean.index)
        cells["change"] = change.groupby(rows, observed=True).mean().map(_signed)
        notes.append("Change: of the mean, against the whole method.")
    base = f"base_{column.removeprefix('gated_')}"
    if base in frame and column != "ece":
        gain = frame.assign(gain=frame[column].astype(float) - frame[base].astype(float))
        cells["least gain"] = gain.groupby(rows, observed=True)["gain"].min().map(_signed)
        notes.append("Least gain: the worst difference to the base on any target, any seed.")
    text = " ".join(filter(None, notes))
    return Table(f"{name}-{stem}", f"{heading}: {title}", text, cells.reset_index())


def right_table(name: str, frame: pd.DataFrame, rows: list[str]) -> Table:
    """Clips answered right as served, before and after, by ``rows`` and target."""
    note = (
        "As `nnpm serve` answers without options: among all emotions, or not at all. Clips "
        "answered right by the base, by the adapted model, and all clips; mean over the seeds. "
        "Least gain: on any target, any seed."
    )
    groups = frame.groupby([*rows, "target"], observed=True)
    parts = groups[["base_right", "right", "clips"]].mean()
    text = [
        f"{row.base_right:.0f} → {row.right:.0f} of {row.clips:.0f}"
        for row in parts.itertuples(index=False)
    ]
    cells = pd.Series(text, parts.index).unstack("target", fill_value="-")
    cells.columns = [str(column) for column in cells.columns]
    gain = frame.assign(gain=frame["right"] - frame["base_right"])
    cells["least gain"] = gain.groupby(rows, observed=True)["gain"].min().map("{:+.0f}".format)
    return Table(
        f"{name}-right", f"{HEADINGS[name][0]}: clips answered right", note, cells.reset_index()
    )


def served_table(name: str, frame: pd.DataFrame, rows: list[str]) -> Table:
    """Share answered and accuracy of the answered, before and after."""
    note = f"As `nnpm serve` answers without options. {SEEDS}"
    titles = {
        "base_answered": "answered, before",
        "answered": "answered, after",
        "base_accuracy_answered": "accuracy of the answered, before",
        "accuracy_answered": "accuracy of the answered, after",
    }
    groups = frame.groupby(["target", *rows], observed=True)[list(titles)]
    cells = groups.agg(spread).rename(columns=titles).reset_index()
    return Table(f"{name}-served", f"{HEADINGS[name][0]}: as served", note, cells)


def headline_targets(frame: pd.DataFrame) -> list[str]:
    """The targets that the means are over: all but the uncurated ones."""
    return [name for name in _targets(frame) if f"({UNCURATED})" not in name]


def _targets(frame: pd.DataFrame) -> list[str]:
    """Those that the rows have, in order."""
    return list(frame["target"].cat.remove_unused_categories().cat.categories)


def by_seed(frame: pd.DataFrame, index: list[str], column: str) -> pd.DataFrame:
    """One figure: a row for each value of ``index`` and seed, a column for each target."""
    found = frame.dropna(subset=column)
    wide = found.pivot(index=[*index, "seed"], columns="target", values=column).sort_index()
    return wide.rename(columns=str).reindex(columns=_targets(frame)).astype(float)


def _over_seeds(figures: Any) -> Any:
    """Mean ± deviation over the seeds of a frame or a series that :func:`by_seed` made."""
    labels = [name for name in figures.index.names if name != "seed"]
    return figures.groupby(labels, observed=True).agg(spread)


def _mean(wide: pd.DataFrame, targets: Sequence[str]) -> pd.Series:
    """Mean over the targets that a row has with any seed, for the seeds that have them all."""
    wide = wide.reindex(columns=targets)
    there = wide.notna()
    labels = [name for name in wide.index.names if name != "seed"]
    needed = there.groupby(labels, observed=True).transform("any")
    return wide.mean(axis=1).where((there | ~needed).all(axis=1))


def _signed(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.3f}"


def _recalls(name: str, frame: pd.DataFrame) -> Table:
    columns = {f"recall_{emotion}": emotion for emotion in CORE_EMOTIONS}
    figures = frame.set_index(["target", "method"]).reindex(columns=list(columns))
    cells = figures.groupby(["target", "method"], observed=True).agg(spread)
    table = cells.rename(columns=columns).reset_index()
    return Table(f"{name}-recall", "Recall by emotion", SEEDS, table)


def _confusions(name: str, frame: pd.DataFrame) -> Table:
    note = "Clips of all seeds by true emotion (row) and answer (column)."
    return Table(f"{name}-confusion", "Confusion", note, confusions(frame))


def confusions(frame: pd.DataFrame) -> pd.DataFrame:
    """Clips of all seeds: columns target, method, true emotion, then one an answer."""
    core = list(CORE_EMOTIONS)
    parts = [pd.DataFrame(columns=["target", "method", "emotion", *core])]
    if "confusion" in frame:
        groups = frame.groupby(["target", "method"], observed=True)["confusion"]
        for (target, method), matrices in groups:
            total = pd.DataFrame(np.sum(matrices.tolist(), axis=0), columns=core)
            labels = {"target": target, "method": method, "emotion": core}
            parts.append(total.assign(**labels)[parts[0].columns])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _cost(name: str, frame: pd.DataFrame) -> Table:
    note = "Seconds of adaptation and judgement on features that are there."
    groups = frame.groupby(["target", "method"], observed=True)["seconds"]
    cells = groups.agg(lambda values: spread(values, 1)).to_frame().reset_index()
    return Table(f"{name}-cost", "Time", note, cells)


def _verdicts(name: str, frame: pd.DataFrame) -> Table:
    """How often each verdict was given, and how often it was wrong."""
    note = (
        f"Losers: adaptations that lose more than {LOSS} UAR on the clips adapted to; winners: "
        "that gain. Beside them, how many were called improved, or rejected."
    )
    single = frame[~frame["verdict"].str.contains("; ") & (frame["condition"] != UNCURATED)]
    gain = single["uar"].astype(float) - single["base_uar"].astype(float)
    lost, won = gain < -LOSS, gain > 0
    parts = pd.DataFrame(
        {
            "method": single["method"],
            **{one: single["verdict"] == one for one in ("improved", "no change", "reject")},
            "losers": lost,
            "called improved": lost & (single["verdict"] == "improved"),
            "winners": won,
            "rejected": won & (single["verdict"] == "reject"),
        }
    )
    cells = parts.groupby("method", observed=True).sum().astype(int)
    if len(cells):
        cells.loc["all"] = cells[cells.index != "source_only"].sum()
    cells = cells.rename_axis("method").reset_index()
    return Table(f"{name}-verdicts", f"{HEADINGS[name][0]}: verdicts", note, cells)


def _estimates(name: str, frame: pd.DataFrame) -> Table:
    """Only where adapted and scored clips are the same."""
    note = (
        "The accuracy estimated without labels, and the accuracy among the four emotions. Error: "
        "mean absolute difference; worst: the largest."
    )
    own = frame[frame["estimated"].notna() & ~frame["verdict"].str.contains("; ")]
    own = own[own["condition"] != UNCURATED]
    error = (own["estimated"].astype(float) - own["wa"].astype(float)).abs()
    own = own.assign(error=error, target=own["target"].astype(str))
    places = [*own["target"].unique(), "all"]
    both = pd.concat([own, own.assign(target="all")])
    both["target"] = pd.Categorical(both["target"], places)
    groups = both.groupby(["method", "target"], observed=True)
    titles = {"estimated": "estimated", "wa": "WA", "estimated_error": "stated error"}
    cells = groups[list(titles)].agg(spread).rename(columns=titles)
    cells["error"] = groups["error"].mean().map("{:.3f}".format)
    cells["worst"] = groups["error"].max().map("{:.3f}".format)
    title = f"{HEADINGS[name][0]}: estimated accuracy"
    return Table(f"{name}-estimates", title, note, cells.reset_index())


def _intervals(name: str, frame: pd.DataFrame) -> Table:
    note = (
        "95 % interval of the mean over the seeds: speakers drawn with replacement, 2000 times, "
        "the same ones for all seeds."
    )
    rows = []
    own = frame[frame["method"] == "nnpm"] if "speakers" in frame else frame.iloc[:0]
    for target, seeds in own.groupby("target", observed=True):
        limits = bootstrap_interval(seeds["speakers"].tolist())
        uar, wa = [f"{low:.3f} to {high:.3f}" for low, high in limits] if limits else "--"
        rows.append(
            {
                "target": target,
                "speakers": str(len(seeds["speakers"].iloc[0])),
                "UAR": spread(seeds["uar"]),
                "UAR, 95 %": uar,
                "WA": spread(seeds["wa"]),
                "WA, 95 %": wa,
            }
        )
    return Table(f"{name}-intervals", "nnpm with its interval", note, pd.DataFrame(rows))


def curated(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the main table whose target is the clips of the core emotions."""
    return frame[(frame["table"] == "main") & (frame["condition"] == CURATED)]
