"""Write the README's figures from the committed results: python -m benchmarks.readme."""

import re

import pandas as pd

from benchmarks.provenance import ROOT
from nnpm.training.benchmark.cases import CURATED
from nnpm.training.benchmark.results import read_frame

CORPORA = {
    "urdu": ("URDU", "ur"),
    "emodb": ("EMO-DB", "de"),
    "ased": ("ASED", "am"),
    "emotiontts": ("EmotionTTS", "ko"),
}
BUNDLES = {"default": "adaptation_P3", "open": "adaptation_open"}
"""Folder of results by bundled model."""


def main_rows(folder: str) -> pd.DataFrame:
    """The bundled network's rows of the main table: each method on the clips that it adapted to."""
    frame = read_frame(ROOT / "benchmarks/results" / folder / "results.csv")
    chosen = (frame["table"] == "main") & (frame["condition"] == CURATED) & (frame["seed"] == 0)
    return frame[chosen]


def accuracy_table() -> str:
    """UAR and clips answered right, before and after adaptation, for both bundled models."""
    lines = [
        "| | language | clips | model | UAR | with target statistics | adapted | answered right, "
        "before → after |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, folder in BUNDLES.items():
        rows = main_rows(folder).set_index(["target", "method"])
        for target, (corpus, language) in CORPORA.items():
            base, adabn, own = (rows.loc[target, m] for m in ("source_only", "adabn", "nnpm"))
            figures = " | ".join(f"{one['uar']:.3f}" for one in (base, adabn, own))
            lines.append(
                f"| {corpus} | {language} | {own['clips']:.0f} | `{model}` | {figures} | "
                f"{own['base_right']:.0f} → {own['right']:.0f} |"
            )
    lines.append("")
    lines.append(
        "The bundled networks (seed 0), scored on the clips adapted to; UAR forces an answer among "
        "the four emotions (`benchmarks/results/adaptation_P3/`, `adaptation_open/`)."
    )
    return "\n".join(lines)


def cost_line() -> str:
    """What an answer costs, and how many come in a second, at 16 connections."""
    text = (ROOT / "benchmarks/results/serving.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    row = {cells[0]: cells for cells in rows}
    own, model = row["nnpm"], row["loop: model.onnx"]
    return (
        f"An answer to a clip of 3 s takes {float(own[1]):.0f} ms of CPU, {float(model[1]):.0f} of "
        f"them the network's; two cores give {own[4]} a second (`benchmarks/results/serving.md`)."
    )


def between_markers(text: str, name: str, content: str) -> str:
    """Replace what stands between ``<!-- measured: name -->`` and ``<!-- /measured -->``."""
    pattern = rf"(<!-- measured: {name} -->\n).*?(<!-- /measured -->)"
    replaced, count = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    assert count == 1, f"{count} places are marked {name}; one is wanted"
    return replaced


def main() -> None:
    """Rewrite the README in place."""
    readme = ROOT / "README.md"
    text = between_markers(readme.read_text(encoding="utf-8"), "accuracy-table", accuracy_table())
    text = between_markers(text, "cost", cost_line())
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
