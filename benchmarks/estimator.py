"""Fit the line by which an accuracy is estimated without labels, where labels may be used.

    python -m benchmarks.estimator --data DIR --runs RUN ...

Targets are the held-out speakers of a run's own corpora (near), the other development corpus of a
run that has learnt one of them (far), and the far ones with 70 % of one emotion. No test target is
looked at. The coefficients stand in training/adaptation/estimator.py, put there by hand. Writes
benchmarks/results/estimator.json and .md.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.provenance import RESULTS, provenance, write
from nnpm.service.inference.card import CORE_EMOTIONS
from nnpm.training.adaptation.command import one_torch_thread
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.evidence import agreement, core_columns
from nnpm.training.adaptation.train import adapt_head
from nnpm.training.benchmark.cases import PROTOCOLS, SKEWED, STUDIED, Part, core_clips, shift
from nnpm.training.benchmark.networks import Base, load_base
from nnpm.training.benchmark.trial import Subject
from nnpm.training.benchmark.work import extract_corpus
from nnpm.training.corpora import Utterance, load
from nnpm.training.source.run import load_training_data, read

DEVELOPMENT = ("ravdess", "nemo")
SKEWED_TO = ("sad", "angry")
FIGURES = ("block_agreement", "view_agreement", "largest_share")


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one target of one run.

    Attributes:
        pair: what is left out together: source, target, and how it was drawn.
        seed: of the run, the views and the adaptation.
        method: by name.
        clips: that were adapted to and scored.
        figures: of :func:`training.adaptation.estimator.agreement`.
        accuracy: among the core emotions.
    """

    pair: str
    seed: int
    method: str
    clips: int
    figures: dict[str, float]
    accuracy: float


def targets(run: Path, data: Path, cache: Path) -> Iterator[tuple[str, list[Utterance], Part]]:
    """Name, corpus and clips of every target of a run."""
    request = read(run).model_copy(update={"data": data})
    if others := set(request.corpora) - set(DEVELOPMENT):
        raise SystemExit(f"{run} has learnt from {', '.join(others)}, a test target")
    source = "+".join(sorted(request.corpora))
    split = load_training_data(request, cache).split
    held_out = {(u.corpus, u.speaker) for u in (*split.validation, *split.test)}
    for name in request.corpora:
        corpus = [u for u in load(name, data) if (u.corpus, u.speaker) in held_out]
        core = core_clips(corpus)
        yield f"{source} > {name}, held out", corpus, Part(core, core)
    if len(request.corpora) > 1:
        return
    for name in sorted(set(DEVELOPMENT) - set(request.corpora)):
        corpus = load(name, data)
        core = core_clips(corpus)
        yield f"{source} > {name}", corpus, Part(core, core)
        skews = [f"{SKEWED:.0%} {emotion}" for emotion in SKEWED_TO]
        cases = shift(name, corpus, PROTOCOLS["P1_ravdess"], np.random.default_rng(0))
        for case in cases:
            if case.condition in skews:
                yield f"{source} > {name}, {case.condition}", corpus, case.parts[0]


def measure(
    base: Base, corpus: Sequence[Utterance], part: Part, pair: str, seed: int, cache: Path
) -> Iterator[Row]:
    """Adapt by every method, and compare what it says of itself with the labels."""
    config = AdaptConfig()
    features = extract_corpus(base, corpus, "recorded", config.views, seed, cache)
    target = Subject(corpus, features).target(part, config.views)
    columns = core_columns(base.network.labels)
    truth = torch.tensor([CORE_EMOTIONS.index(corpus[place].emotion) for place in part.adapt])
    for method in STUDIED:
        head = adapt_head(base.network.head, base.source, target, method, config, seed)
        with torch.no_grad():
            logits = head.classify(head.project_target(target.pooled))[:, columns]
        accuracy = float((logits.argmax(1) == truth).float().mean())
        figures = agreement(head, target, columns)
        yield Row(pair, seed, method, len(truth), figures, accuracy)


def fit(rows: Sequence[Row]) -> np.ndarray:
    """Least squares of the accuracy: intercept, then :data:`FIGURES`."""
    return np.linalg.lstsq(_inputs(rows), np.array([r.accuracy for r in rows]))[0]


def errors_left_out(rows: Sequence[Row]) -> dict[str, float]:
    """Mean absolute error on every pair, by the line through the others; with their mean."""
    found: dict[str, float] = {}
    errors = []
    for pair in dict.fromkeys(row.pair for row in rows):
        line = fit([row for row in rows if row.pair != pair])
        left = [row for row in rows if row.pair == pair]
        off = np.abs(np.clip(_inputs(left) @ line, 0, 1) - [row.accuracy for row in left])
        found[pair] = float(off.mean())
        errors += off.tolist()
    return found | {"all": float(np.mean(errors))}


def _inputs(rows: Sequence[Row]) -> np.ndarray:
    return np.array([[1.0, *(row.figures[name] for name in FIGURES)] for row in rows])


def table(line: np.ndarray, errors: dict[str, float], rows: Sequence[Row]) -> str:
    """Coefficients, then errors by pair, as Markdown."""
    lines = ["| | coefficient |", "| --- | --- |"]
    names = ("intercept", *FIGURES)
    lines += [f"| {name} | {value:.3f} |" for name, value in zip(names, line, strict=True)]
    lines += [
        "",
        "| pair, left out of the fit | accuracies | mean absolute error |",
        "| --- | --- | --- |",
    ]
    for pair, error in errors.items():
        own = [row.accuracy for row in rows if pair in (row.pair, "all")]
        lines.append(f"| {pair} | {min(own):.2f} to {max(own):.2f} ({len(own)}) | {error:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "nnpm")
    options = parser.parse_args()
    rows: list[Row] = []
    with one_torch_thread():
        for run in options.runs:
            base, seed = load_base(run, options.data, options.cache), read(run).seed
            for pair, corpus, part in targets(run, options.data, options.cache):
                rows += measure(base, corpus, part, pair, seed, options.cache)
                print(pair, seed, [round(row.accuracy, 3) for row in rows[-len(STUDIED) :]])
    line, errors = fit(rows), errors_left_out(rows)
    facts = provenance(f"benchmarks/estimator.py ({len(options.runs)} runs)")
    result = {
        **facts,
        "coefficients": dict(zip(("intercept", *FIGURES), line.tolist(), strict=True)),
        "errors": errors,
        "rows": [asdict(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "estimator.json").write_text(json.dumps(result, indent=1) + "\n")
    write("estimator", table(line, errors, rows), facts)


if __name__ == "__main__":
    main()
