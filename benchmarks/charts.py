"""Draw the charts of README and docs from the committed results: python -m benchmarks.charts.

Writes docs/charts/: UAR by target and method, learning curve, confusion matrices and maps of the
benchmark (P2), and coverage against accuracy of the bundled model.
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.provenance import RESULTS, ROOT
from nnpm.training.benchmark.cases import PROTOCOLS
from nnpm.training.benchmark.charts import COLOURS, charts, confusion_chart, map_chart, to_svg
from nnpm.training.benchmark.results import read_frame

PROTOCOL = "P2"


def main() -> None:
    """Draw all charts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/charts")
    draw(parser.parse_args().out)


def draw(out: Path) -> None:
    """Write one SVG file a chart."""
    out.mkdir(parents=True, exist_ok=True)
    folder = RESULTS / f"adaptation_{PROTOCOL}"
    drawn = charts(read_frame(folder / "results.csv"), PROTOCOLS[PROTOCOL])
    drawn.append(confusion_chart(pd.read_csv(folder / "main-confusion.csv", skiprows=1)))
    drawn.append(map_chart(pd.read_csv(folder / "map.csv", skiprows=1)))
    for chart in drawn:
        (out / f"{chart.name}.svg").write_text(chart.svg, encoding="utf-8")
    points = pd.read_csv(RESULTS / "coverage.csv", skiprows=1)
    (out / "coverage.svg").write_text(coverage_chart(points), encoding="utf-8")


def coverage_chart(points: pd.DataFrame) -> str:
    """Accuracy of the surest clips against their share, a line for each set of clips."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for (name, curve), colour in zip(points.groupby("clips", sort=False), COLOURS, strict=False):
        axes.plot(curve["coverage"], curve["accuracy"], color=colour, label=name, marker=".")
    axes.set(xlabel="share answered, the surest first", ylabel="accuracy of the answered clips")
    axes.set(xlim=(0, 1.02), ylim=(0, 1))
    axes.grid(color="#dddddd")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return to_svg(figure)


if __name__ == "__main__":
    main()
