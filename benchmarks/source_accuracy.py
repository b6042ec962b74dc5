"""Score unadapted bundles of several seeds on held-out source speakers and on unseen corpora.

    python -m benchmarks.source_accuracy --name P3 --data DIR --bundle BUNDLE0 BUNDLE1 BUNDLE2

Evaluates each bundle as ``nnpm evaluate`` does over the four emotions, and writes
benchmarks/results/source_NAME.json and .md. Test targets are scored here and nothing is chosen by
them; log every call in benchmarks/experiments.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.provenance import RESULTS, provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.card import CORE_EMOTIONS
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.benchmark.cases import TEST
from nnpm.training.benchmark.command import seed_of, source_of
from nnpm.training.benchmark.features import load_target
from nnpm.training.corpora import load
from nnpm.training.evaluation import judge, report

FIGURES = ("wa", "uar", "macro_f1", "ece", "coverage", "wa_answered")


def score(bundle: Bundle, data: Path) -> dict[str, dict[str, float]]:
    """Figures of one bundle per corpus; ``source`` are its own held-out speakers."""
    recognizer = Recognizer(bundle)
    held_out = [u for name in sorted(source_of(bundle)) for u in load_target(name, data, bundle)[1]]
    corpora = {"source": held_out} | {name: load(name, data) for name in (*TEST, "hindi")}
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
    parser.add_argument("--name", required=True, help="of the protocol: P1, P2, P3 or open")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    found = [bundles.load(path) for path in options.bundle]
    if any(source_of(one) != source_of(found[0]) for one in found):
        parser.error("the bundles are not of one source")
    if len({seed_of(one) for one in found}) < len(found):
        parser.error("two bundles have the same seed")
    seeds = [score(one, options.data) for one in found]
    facts = provenance(f"benchmarks/source_accuracy.py --name {options.name} ({len(seeds)} seeds)")
    name = f"source_{options.name}"
    (RESULTS / f"{name}.json").write_text(json.dumps({**facts, "seeds": seeds}, indent=1) + "\n")
    write(name, table(options.name, seeds), facts)


if __name__ == "__main__":
    main()
