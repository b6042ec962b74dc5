"""Write the README's tables from the committed results: python -m benchmarks.readme."""

import json
import re

import numpy as np

from benchmarks.provenance import ROOT
from nnpm.training.benchmark.cases import CURATED, PROTOCOLS
from nnpm.training.benchmark.results import read_frame
from nnpm.training.benchmark.tables import by_seed, in_order, spread

NAMES = {
    "source": ("held-out speakers of RAVDESS and nEMO", "en, pl"),
    "urdu": ("URDU", "ur"),
    "emodb": ("EMO-DB", "de"),
    "ased": ("ASED", "am"),
    "emotiontts": ("EmotionTTS", "ko"),
}
ADAPTATION = "benchmarks/results/adaptation_P2"


def accuracy_table() -> str:
    """Mean ± standard deviation over the seeds of P2, as Markdown."""
    results = json.loads((ROOT / "benchmarks/results/source_P2.json").read_text())
    seeds = results["seeds"]
    lines = ["| corpus | language | WA | UAR | ECE |", "| --- | --- | --- | --- | --- |"]
    for key, (corpus, language) in NAMES.items():
        cells = []
        for figure in ("wa", "uar", "ece"):
            values = [seed[key][figure] for seed in seeds]
            cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
        lines.append(f"| {corpus} | {language} | {' | '.join(cells)} |")
    lines.append("")
    lines.append(
        f"Mean and standard deviation over {len(seeds)} seeds of one recipe "
        "(`benchmarks/results/source_P2.md`). The bundled model is the first seed trained once "
        "more, as `make train` does it; its own figures are in `benchmarks/experiments.md`."
    )
    return "\n".join(lines)


def adaptation_table() -> str:
    """UAR of every method on every target of P2, mean ± standard deviation over the seeds."""
    frame = read_frame(ROOT / ADAPTATION / "results.csv")
    rows = in_order(frame[frame["table"] == "main"], PROTOCOLS["P2"])
    rows = rows[rows["condition"] == CURATED]
    uar = by_seed(rows, ["method"], "uar")
    assert not uar.isna().any(axis=None), "a method lacks a target or a seed"
    targets = [name for name in NAMES if name in uar]
    columns = {NAMES[name][0]: [name] for name in targets}
    columns |= {"mean": targets, "mean without URDU": [t for t in targets if t != "urdu"]}
    table = [
        f"| UAR by method | {' | '.join(columns)} |",
        "|" + " --- |" * (len(columns) + 1),
    ]
    for method, seeds in uar.groupby("method", observed=True):
        cells = [spread(seeds[names].mean(axis=1)) for names in columns.values()]
        table.append(f"| `{method}` | {' | '.join(cells)} |")
    note = (
        f"Mean and standard deviation over {rows['seed'].nunique()} seeds; scored on the clips "
        f"adapted to, an answer among four emotions forced on each (`{ADAPTATION}/main.md`, where "
        "WA, calibration, recall and cost are as well)."
    )
    return "\n".join([*table, "", note])


def between_markers(text: str, name: str, content: str) -> str:
    """Replace what stands between ``<!-- measured: name -->`` and ``<!-- /measured -->``."""
    pattern = rf"(<!-- measured: {name} -->\n).*?(<!-- /measured -->)"
    replaced, count = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    assert count == 1, f"{count} places are marked {name}; one is wanted"
    return replaced


def main() -> None:
    """Rewrite the README in place."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = between_markers(text, "accuracy-table", accuracy_table())
    text = between_markers(text, "adaptation-table", adaptation_table())
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
