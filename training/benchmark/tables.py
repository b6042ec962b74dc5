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
from .cases import KINDS, UNCURATED, Protocol, all_methods
from .plan import NON_SPEECH, TABLES, WHOLE

SEEDS = "Mean ± standard deviation over the seeds."

FIGURES = {
    "uar": ("uar", "UAR"),
    "wa": ("wa", "WA"),
    "macro_f1": ("macro_f1", "Macro F1"),
    "ece": ("ece", "ECE"),
    "coverage": ("coverage", "Coverage"),
    "answered": ("wa_answered", "WA of the answered"),
    "gated-uar": ("gated_uar", "UAR, gated"),
    "gated-wa": ("gated_wa", "WA, gated"),
    "valence-uar": ("valence_uar", "Valence, UAR"),
    "valence-wa": ("valence_wa", "Valence, WA"),
}
"""File, column of the frame and title of each figure of the main tables."""

_NOTES = {
    "gated": "Where the verdict is reject, the base answers.",
    "valence": "Positive: happy, neutral, calm, surprise; negative: angry, sad, fear, disgust.",
    "coverage": "Share of the clips that the service would answer.",
    "ece": "15 bins of equal width; lower is better.",
}

STUDIES = {
    "curve": ("Learning curve", "Adapted to so many random clips, scored on all."),
    "shift": ("Label shift", "One emotion absent, or 70 % of the clips; scored on those clips."),
    "degraded": ("Telephone and noise", "8 kHz and mu-law; pink noise 10 dB below the speech."),
}


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
        if rows.empty:
            continue
        if name in STUDIES:
            found[name] = study_tables(name, rows, protocol)
        elif name == "ablations":
            found[name] = ablation_tables(rows, protocol)
        elif name == NON_SPEECH:
            found[name] = non_speech_tables(rows)
        else:
            found[name] = method_tables(name, rows, protocol)
    return found


def in_order(frame: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Name the uncurated targets apart, and give targets and methods their order.

    Groups and pivots of the result come by target as the protocol names them, other targets and
    then uncurated ones last, and by method, ``nnpm`` last.
    """
    uncurated = frame["condition"] == UNCURATED
    targets = frame["target"].astype(str).where(~uncurated, frame["target"] + f" ({UNCURATED})")
    known = [*protocol.targets, *KINDS]
    rank = {name: place for place, name in enumerate(known)}

    def place(target: str) -> tuple[bool, int, str]:
        name = target.removesuffix(f" ({UNCURATED})")
        return name != target, rank.get(name, len(rank)), name

    order = sorted(targets.unique(), key=place)
    return frame.assign(
        target=pd.Categorical(targets, order), method=pd.Categorical(frame["method"], all_methods())
    )


def method_tables(name: str, frame: pd.DataFrame, protocol: Protocol) -> list[Table]:
    """Every figure of every method on every target.

    Args:
        name: main or inductive; the names of the CSV files start with it.
        frame: rows of this table, :func:`in_order`.
        protocol: says which targets the means are over.
    """
    headline = headline_targets(frame, protocol)
    others = [target for target in headline if target not in protocol.whole]
    means = {"mean": headline, f"mean without {', '.join(protocol.whole)}": others}
    note = (
        f"{SEEDS} The means are over {', '.join(headline) or 'no target: none of them is here'}; "
        "least gain: the worst difference to source_only on any target, any seed."
    )
    tables = []
    for stem, (column, title) in FIGURES.items():
        wide = by_seed(frame, ["method"], column)
        cells = _over_seeds(wide)
        for heading, targets in means.items():
            cells[heading] = _over_seeds(_mean(wide, targets))
        cells["least gain"] = _least_gain(wide, "method", "source_only")
        notes = [text for word, text in _NOTES.items() if word in stem]
        table = Table(f"{name}-{stem}", title, " ".join([note, *notes]), cells.reset_index())
        tables.append(table)
    tables += [_recalls(name, frame), _confusions(name, frame), _cost(name, frame)]
    tables += [_verdicts(name, frame), _estimates(name, frame), _intervals(name, frame)]
    return [table for table in tables if not table.frame.empty]


def study_tables(name: str, frame: pd.DataFrame, protocol: Protocol) -> list[Table]:
    """UAR and WA by condition and method, ungated and gated."""
    title, note = STUDIES[name]
    note = (
        f"{note} {SEEDS} The mean is over the targets that have a figure; least gain: the worst "
        "difference to source_only."
    )
    conditions = pd.Categorical(frame["condition"], frame["condition"].unique())
    frame = frame.assign(condition=conditions)
    tables = []
    for stem in ("uar", "wa", "gated-uar"):
        column, kind = FIGURES[stem]
        wide = by_seed(frame, ["condition", "method"], column)
        cells = _over_seeds(wide)
        cells["mean"] = _over_seeds(_mean_of_present(wide, headline_targets(frame, protocol)))
        cells["least gain"] = _least_gain(wide, "method", "source_only")
        tables.append(Table(f"{name}-{stem}", f"{title}: {kind}", note, cells.reset_index()))
    return tables


def ablation_tables(frame: pd.DataFrame, protocol: Protocol) -> list[Table]:
    """What each part of nnpm contributes, one at a time."""
    note = (
        f"nnpm without one of its parts. {SEEDS} Change: of the mean, against the whole method; "
        "worst change: on any target, any seed."
    )
    frame = frame.assign(without=pd.Categorical(frame["variant"], frame["variant"].unique()))
    tables = []
    for stem in ("uar", "wa", "ece"):
        column, kind = FIGURES[stem]
        wide = by_seed(frame, ["without"], column)
        mean = _mean(wide, headline_targets(frame, protocol))
        change = mean - _reference(mean, "without", WHOLE)
        cells = _over_seeds(wide)
        cells["mean"] = _over_seeds(mean)
        cells["change"] = change.groupby("without", observed=True).mean().map(_signed)
        cells["worst change"] = _least_gain(wide, "without", WHOLE)
        tables.append(Table(f"ablations-{stem}", f"Ablations: {kind}", note, cells.reset_index()))
    return tables


def non_speech_tables(frame: pd.DataFrame) -> list[Table]:
    """Verdicts on folders without speech."""
    note = (
        "The verdict on sounds that are no speech. Accepted: taken for speech; refused: too few of "
        "them. Verdicts are counted over the seeds."
    )
    groups = frame.groupby(["method", "target"], observed=True)
    cells = pd.DataFrame(
        {
            "sounds": groups["clips"].first().map("{:.0f}".format),
            "accepted": groups["accepted"].agg(lambda counts: spread(counts, 0)),
        }
    )
    cells = cells.join(_count_verdicts(frame, ("refused", "reject", "no change", "improved")))
    cells = cells.swaplevel().reset_index()
    return [Table(f"{NON_SPEECH}-verdicts", "Not speech", note, cells)]


def headline_targets(frame: pd.DataFrame, protocol: Protocol) -> list[str]:
    """The targets that the means are over: curated, and not outside."""
    return [name for name in _targets(frame) if "(" not in name and name not in protocol.outside]


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
    return figures.groupby(_labels(figures), observed=True).agg(spread)


def _labels(figures: Any) -> list[str]:
    return [name for name in figures.index.names if name != "seed"]


def _mean(wide: pd.DataFrame, targets: Sequence[str]) -> pd.Series:
    """Mean over targets, for the seeds that have them all."""
    return wide.reindex(columns=targets).mean(axis=1, skipna=False)


def _mean_of_present(wide: pd.DataFrame, targets: Sequence[str]) -> pd.Series:
    """Mean over the targets that a label has with any seed, for the seeds that have them all."""
    wide = wide.reindex(columns=targets)
    there = wide.notna()
    needed = there.groupby(_labels(wide), observed=True).transform("any")
    return wide.mean(axis=1).where((there | ~needed).all(axis=1))


def _reference(figures: Any, level: str, value: str) -> Any:
    """The figures of one value of a level, beside every row that differs in this level alone."""
    own = figures[figures.index.get_level_values(level) == value].droplevel(level)
    return own.reindex(figures.index.droplevel(level)).set_axis(figures.index)


def _least_gain(wide: pd.DataFrame, level: str, reference: str) -> pd.Series:
    """The worst difference to the reference on any target with any seed."""
    gains = wide - _reference(wide, level, reference)
    return gains.groupby(_labels(wide), observed=True).min().min(axis=1).map(_signed)


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
    note = (
        "One thread. Seconds of adapt_head, on features that are there. Memory: by how much the "
        "resident set rose at most, as Linux reports it; memory that the process had freed before "
        "and took again does not show."
    )
    clips = frame["adapted_clips"].str.split("; ").map(lambda counts: sum(map(int, counts)))
    groups = frame.assign(clips=clips).groupby(["target", "method"], observed=True)
    cells = pd.DataFrame(
        {
            "clips": groups["clips"].max().map(str),
            "seconds": groups["seconds"].agg(lambda values: spread(values, 1)),
            "memory, MiB": groups["rise_mib"].agg(lambda values: spread(values, 1)),
        }
    )
    return Table(f"{name}-cost", "Time and memory", note, cells.reset_index())


def _verdicts(name: str, frame: pd.DataFrame) -> Table:
    counts = _count_verdicts(frame, ("improved", "no change", "reject"))
    cells = counts.reorder_levels(["target", "method"]).sort_index().reset_index()
    return Table(f"{name}-verdicts", "Verdicts", "Adaptations, counted.", cells)


def _count_verdicts(frame: pd.DataFrame, verdicts: Sequence[str]) -> pd.DataFrame:
    one_each = frame.assign(verdict=frame["verdict"].str.split("; ")).explode("verdict")
    counts = one_each.groupby(["method", "target", "verdict"], observed=True).size().unstack()
    counts = counts.reindex(columns=pd.Index(verdicts)).fillna(0)
    return counts.map("{:.0f}".format).rename_axis(columns=None)


def _estimates(name: str, frame: pd.DataFrame) -> Table:
    """Only where adapted and scored clips are the same."""
    note = (
        "The estimate without labels beside the truth: accuracy among the four emotions (WA), and "
        "where any emotion may be answered. Error: mean absolute difference to WA."
    )
    titles = {
        "estimated": "estimated",
        "wa": "WA",
        "wa_open": "any emotion",
        "estimated_error": "stated error",
    }
    own = frame[(frame["condition"] == "curated") & frame["estimated"].notna()]
    error = (own["estimated"].astype(float) - own["wa"]).abs()
    own = own.assign(error=error, target=own["target"].astype(str))
    places = [*own["target"].unique(), "all"]
    both = pd.concat([own, own.assign(target="all")])
    both["target"] = pd.Categorical(both["target"], places)
    groups = both.groupby(["method", "target"], observed=True)
    cells = groups[list(titles)].agg(spread).rename(columns=titles)
    cells["error"] = groups["error"].mean().map("{:.3f}".format)
    return Table(f"{name}-estimates", "Estimated accuracy", note, cells.reset_index())


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
