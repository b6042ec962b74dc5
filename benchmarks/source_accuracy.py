"""Score unadapted bundles of several seeds on held-out source speakers and on unseen corpora.

    python -m benchmarks.source_accuracy --name P2 --data DIR --runs RUN0 RUN1 RUN2

Exports each run, evaluates it as ``nnpm evaluate`` does over the four emotions, and writes
benchmarks/results/source_NAME.json and .md. Test targets are scored here and nothing is chosen by
them; log every call in benchmarks/experiments.md.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.provenance import RESULTS, provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.card import CORE_EMOTIONS
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.bundle.export import export
from nnpm.training.corpora import load
from nnpm.training.evaluation import judge, report
from nnpm.training.source.run import load_training_data, read

TARGETS = ("urdu", "emodb", "ased", "emotiontts", "nemo", "ravdess")
FIGURES = ("wa", "uar", "macro_f1", "ece", "coverage", "wa_answered")


def score(run: Path, data: Path, cache: Path, targets: list[str]) -> dict[str, dict[str, float]]:
    """Figures of one run per corpus; ``source`` are its own held-out speakers.

    The decision was fitted on these, so their ECE is too low: the card has the cross-fitted one.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export(run, bundle, cache=cache, data=data)
        recognizer = Recognizer(bundles.load(bundle))
        split = load_training_data(read(run).model_copy(update={"data": data}), cache).split
        corpora = {"source": split.held_out} | {name: load(name, data) for name in targets}
        return {
            name: report(judge(recognizer, utterances, CORE_EMOTIONS), CORE_EMOTIONS)
            for name, utterances in corpora.items()
        }


def table(name: str, seeds: list[dict[str, dict[str, float]]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines = [
        f"| {name}: corpus | clips | " + " | ".join(figure.upper() for figure in FIGURES) + " |",
        "| --- " * (len(FIGURES) + 2) + "|",
    ]
    for corpus in seeds[0]:
        cells = []
        for figure in FIGURES:
            values = [seed[corpus][figure] for seed in seeds]
            if None in values:  # a bundle that abstained from every clip
                cells.append("none answered")
                continue
            cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=len(values) > 1):.3f}")
        lines.append(f"| {corpus} | {seeds[0][corpus]['clips']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the protocol: P1, P1_ravdess, P2 or P3")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "nnpm")
    options = parser.parse_args()
    requests = [read(run) for run in options.runs]
    if any((r.corpora, r.config) != (requests[0].corpora, requests[0].config) for r in requests):
        parser.error("the runs are not of one recipe and one source")
    if len({request.seed for request in requests}) < len(requests):
        parser.error("two runs have the same seed")
    source = set(requests[0].corpora)
    targets = [name for name in TARGETS if name not in source]
    seeds = [score(run, options.data, options.cache, targets) for run in options.runs]
    facts = provenance(f"benchmarks/source_accuracy.py --name {options.name} ({len(seeds)} seeds)")
    name = f"source_{options.name}"
    (RESULTS / f"{name}.json").write_text(json.dumps({**facts, "seeds": seeds}, indent=1) + "\n")
    write(name, table(options.name, seeds), facts)


if __name__ == "__main__":
    main()
