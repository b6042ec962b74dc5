"""The charts of a benchmark, as SVG: matplotlib's figures, without pyplot and its global state."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...service.inference.card import CORE_EMOTIONS
from .cases import Protocol, all_methods
from .tables import by_seed, confusions, curated, headline_targets, in_order

# Okabe and Ito's colours, which the colour-blind tell apart.
EMOTION_COLOURS = {"angry": "#d55e00", "happy": "#e69f00", "neutral": "#7f7f7f", "sad": "#0072b2"}
COLOURS = ("#000000", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#7f7f7f", "#d55e00")
MAPS = ("source_only", "adabn")
"""The first of these that was run is drawn beside the last method."""

_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture.

    Attributes:
        name: of its file, without the suffix.
        title: heading.
        note: how to read it.
        svg: a whole SVG document.
    """

    name: str
    title: str
    note: str
    svg: str

    def inline(self) -> str:
        """The SVG element for a page that has several: its identifiers bear the chart's name."""
        element = self.svg[self.svg.index("<svg") :]
        for mark in ('id="', 'href="#', "url(#"):
            element = element.replace(mark, f"{mark}{self.name}-")
        return element


def charts(frame: pd.DataFrame, protocol: Protocol) -> list[Chart]:
    """Draw what the rows allow.

    Args:
        frame: of :func:`nnpm.training.benchmark.results.to_frame`, or
            :func:`~nnpm.training.benchmark.results.read_frame`, which has neither confusions nor
            maps.
        protocol: names the targets and their order.
    """
    frame = in_order(frame, protocol)
    main = curated(frame)
    curve = frame[frame["table"] == "curve"]
    found = []
    if not main.empty:
        found.append(uar_chart(main))
    if not curve.empty:
        found.append(curve_chart(curve))
    if not (counts := confusions(main)).empty:
        found.append(confusion_chart(counts))
    if not (points := map_points(main)).empty:
        found.append(map_chart(points))
    return found


def uar_chart(frame: pd.DataFrame) -> Chart:
    """UAR of every method on every target, curated; every seed is a dot.

    Args:
        frame: rows of the main table, :func:`~nnpm.training.benchmark.tables.in_order`.
    """
    wide = by_seed(frame, ["method"], "uar")
    headline = headline_targets(frame)
    wide["mean"] = wide[headline].mean(axis=1, skipna=False)
    methods = list(wide.index.unique("method"))
    figure = Figure(figsize=(1.5 + 1.3 * wide.shape[1], 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        seeds = wide.xs(method, level="method")
        places = np.arange(wide.shape[1]) + (number - (len(methods) - 1) / 2) * width
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(places, seeds.mean(), 0.9 * width, color=colour, label=method, alpha=0.85)
        for values in seeds.to_numpy():
            axes.plot(places, values, ".", color="black", markersize=2.5)
    axes.set_xticks(range(wide.shape[1]), list(wide.columns))
    axes.axhline(1 / len(CORE_EMOTIONS), color="#7f7f7f", linewidth=0.8, linestyle=":")
    axes.set(ylabel="UAR", ylim=(0, 1))
    figure.legend(loc="outside upper left", ncols=min(4, len(methods)), frameon=False)
    note = (
        "Bars: the mean over the seeds; dots: every seed; dotted line: chance. The mean is over "
        f"{', '.join(headline)}."
    )
    return _chart("uar", "UAR by target and method", note, figure)


def curve_chart(frame: pd.DataFrame) -> Chart:
    """UAR against the number of clips that were adapted to.

    Args:
        frame: rows of the table ``curve``, :func:`~nnpm.training.benchmark.tables.in_order`.
    """
    clips = frame["condition"].astype(str).str.split(" ").str[0].astype(int)
    wide = by_seed(frame.assign(clips=clips), ["method", "clips"], "uar")
    figure = Figure(figsize=(1 + 2.1 * wide.shape[1], 2.9), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, wide.shape[1], sharey=True, squeeze=False)[0]
    colours = dict(zip(all_methods(), COLOURS, strict=False))
    for axes, target in zip(panels, wide.columns, strict=True):
        for method in wide.index.unique("method"):
            seeds = wide[target].xs(method, level="method").dropna().groupby("clips")
            mean, deviation = seeds.mean(), seeds.std().fillna(0)
            axes.errorbar(
                mean.index, mean, deviation, label=method, color=colours[method], capsize=2,
                linewidth=1.2, marker="o", markersize=3,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(sorted(clips.unique()), map(str, sorted(clips.unique())))
        axes.minorticks_off()
        axes.set(title=target, xlabel="clips adapted to")
    panels[0].set_ylabel("UAR")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False)
    note = "Random clips of the target, scored on all; mean ± standard deviation over the seeds."
    return _chart("curve", "Few clips", note, figure)


def confusion_chart(counts: pd.DataFrame) -> Chart:
    """One matrix for each target (row) and method (column).

    Args:
        counts: of :func:`nnpm.training.benchmark.tables.confusions`.
    """
    targets, methods = list(counts["target"].unique()), list(counts["method"].unique())
    matrices = dict(list(counts.set_index("emotion").groupby(["target", "method"])))
    size = (1 + 1.6 * len(methods), 0.6 + 1.6 * len(targets))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(targets), len(methods), squeeze=False, sharex=True, sharey=True)
    for target, row in zip(targets, panels, strict=True):
        for method, axes in zip(methods, row, strict=True):
            if (target, method) in matrices:
                _confusion(axes, matrices[target, method])
            else:
                axes.set_axis_off()
    for axes, method in zip(panels[0], methods, strict=True):
        axes.set_title(method)
    for axes, target in zip(panels[:, 0], targets, strict=True):
        axes.set_ylabel(target, fontweight="bold")
    note = "True emotion by row, answer by column; the share of each emotion's clips, all seeds."
    return _chart("confusion", "Confusion matrices", note, figure)


def _confusion(axes: Axes, counts: pd.DataFrame) -> None:
    names = list(CORE_EMOTIONS)
    axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), aspect="equal")
    axes.tick_params(length=0, labelsize=7)
    own = counts.loc[names, names].astype(float)
    shares = own.div(own.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="#cccccc", linewidth=0.5)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.6 else "black"
        axes.text(
            column + 0.5, row + 0.5, f"{share:.2f}", ha="center", va="center", size=7, color=colour
        )


def map_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The maps of the first seed, before adaptation and after the last method.

    Returns:
        Columns target, method, emotion, x and y; a row a clip.
    """
    parts = [pd.DataFrame(columns=["target", "method", "emotion", "x", "y"])]
    if "map" in frame:
        drawn = frame[frame["map"].notna()].sort_values(["target", "method"])
        for target, rows in drawn.groupby("target", observed=True):
            maps = dict(zip(rows["method"], rows["map"], strict=True))
            first = [method for method in MAPS if method in maps][:1]
            for method in dict.fromkeys([*first, list(maps)[-1]]):
                points = pd.DataFrame(maps[method]["points"], columns=["x", "y"])
                labels = {"target": target, "method": method, "emotion": maps[method]["emotion"]}
                parts.append(points.assign(**labels)[parts[0].columns])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def map_chart(points: pd.DataFrame) -> Chart:
    """Clips in the plane, coloured by their true emotion: a column a target.

    Args:
        points: of :func:`map_points`.
    """
    maps = {
        target: rows.groupby("method", sort=False)
        for target, rows in points.groupby("target", sort=False)
    }
    height = max(len(methods) for methods in maps.values())
    figure = Figure(figsize=(2.2 * len(maps), 0.5 + 2.3 * height), layout="constrained")
    panels = figure.subplots(height, len(maps), squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for column, (target, methods) in enumerate(maps.items()):
        for axes, (method, clips) in zip(panels[:, column], methods, strict=False):
            axes.set_axis_on()
            axes.set(title=f"{target}, {method}", xticks=[], yticks=[])
            axes.set_aspect("equal", adjustable="datalim")
            colours = clips["emotion"].map(EMOTION_COLOURS)
            axes.scatter(
                clips["x"], clips["y"], c=colours, s=6, alpha=0.7, linewidths=0, rasterized=True
            )  # hundreds of dots are smaller as an image
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=emotion)
        for emotion, colour in EMOTION_COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False)
    note = (
        "The first two principal components of z, before and after adaptation; seed 0; colours are "
        "the true emotions. Each map has axes of its own."
    )
    return _chart("map", "Maps of the targets", note, figure)


def _chart(name: str, title: str, note: str, figure: Figure) -> Chart:
    return Chart(name, title, note, to_svg(figure))


def to_svg(figure: Figure) -> str:
    """A figure as SVG; the same figure gives the same text."""
    out = io.StringIO()
    # text stays text, and identifiers do not change by chance
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nnpm"}):
        figure.savefig(out, format="svg", metadata=_METADATA, dpi=200)
    return out.getvalue()
