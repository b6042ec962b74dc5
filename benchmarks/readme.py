"""Write the README's accuracy table from the committed results: python -m benchmarks.readme."""

import json
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
NAMES = {
    "source": ("held-out speakers of RAVDESS and nEMO", "en, pl"),
    "urdu": ("URDU", "ur"),
    "emodb": ("EMO-DB", "de"),
    "ased": ("ASED", "am"),
    "emotiontts": ("EmotionTTS", "ko"),
}


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


def between_markers(text: str, name: str, content: str) -> str:
    """Replace what stands between ``<!-- measured: name -->`` and ``<!-- /measured -->``."""
    pattern = rf"(<!-- measured: {name} -->\n).*?(<!-- /measured -->)"
    replaced, count = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    assert count == 1, f"{count} places are marked {name}; one is wanted"
    return replaced


def main() -> None:
    """Rewrite the README in place."""
    readme = ROOT / "README.md"
    text = between_markers(readme.read_text(), "accuracy-table", accuracy_table())
    readme.write_text(text)


if __name__ == "__main__":
    main()
