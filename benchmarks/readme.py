"""Write the README's tables from the committed results: python -m benchmarks.readme."""

import csv
import json
import re
from pathlib import Path

import numpy as np

from nnpm.training.benchmark.tables import spread

ROOT = Path(__file__).parents[1]
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
        "more, as `make train` does it; its own figures are in `docs/experiments.md`."
    )
    return "\n".join(lines)


def adaptation_table() -> str:
    """UAR of every method on every target of P2, mean ± standard deviation over the seeds."""
    lines = (ROOT / ADAPTATION / "results.csv").read_text(encoding="utf-8").splitlines()
    rows = [
        row
        for row in csv.DictReader(line for line in lines if not line.startswith("#"))
        if row["table"] == "main" and row["condition"] == "curated" and not row["variant"]
    ]
    methods, seeds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "seed"))
    targets = [name for name in NAMES if name in {row["target"] for row in rows}]
    uar = {(row["method"], row["target"], row["seed"]): float(row["uar"]) for row in rows}
    assert len(uar) == len(rows) == len(methods) * len(targets) * len(seeds), "rows lack or repeat"
    columns = [*([target] for target in targets), targets, [t for t in targets if t != "urdu"]]
    titles = [*(NAMES[target][0] for target in targets), "mean", "mean without URDU"]
    table = [
        f"| UAR by method | {' | '.join(titles)} |",
        "|" + " --- |" * (len(titles) + 1),
    ]
    for method in methods:
        cells = [
            spread([float(np.mean([uar[method, t, seed] for t in column])) for seed in seeds])
            for column in columns
        ]
        table.append(f"| `{method}` | {' | '.join(cells)} |")
    told = (
        f"Mean and standard deviation over {len(seeds)} seeds; scored on the clips adapted to, an "
        f"answer among four emotions forced on each (`{ADAPTATION}/main.md`, where WA, "
        "calibration, recall and cost are as well)."
    )
    return "\n".join([*table, "", told])


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
