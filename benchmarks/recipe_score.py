"""Score a recipe where labels may be used: RAVDESS -> nEMO and back, as is and by telephone.

    python -m benchmarks.recipe_score --data DIR --config CONFIG [--pairs ravdess:nemo nemo:ravdess]

Recipes are chosen by these figures and never by a test target (docs/research/results.md). One JSON
line per pair and seed on standard output; the notes are in benchmarks/experiments.md.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from nnpm.service.inference.card import CORE_EMOTIONS
from nnpm.training import config as recipes
from nnpm.training.benchmark.cases import telephone
from nnpm.training.corpora import load
from nnpm.training.data.clips import load_clips, load_features
from nnpm.training.data.variants import load_variants
from nnpm.training.evaluation import accuracy, unweighted_average_recall
from nnpm.training.source.functionals_head import add_functionals
from nnpm.training.source.trainer import Trainer, embed


def score(network, labels, clips, emotions) -> dict[str, float]:
    """WA and UAR over the four emotions, and UAR over all that both sides know."""
    logits, _ = embed(network, clips, torch.device("cpu"))
    figures = {}
    for name, allowed in (("core", CORE_EMOTIONS), ("all", sorted(set(emotions) & set(labels)))):
        keep = [i for i, emotion in enumerate(emotions) if emotion in allowed]
        columns = [labels.index(emotion) for emotion in allowed]
        prediction = logits[keep][:, columns].argmax(1).numpy()
        truth = np.array([allowed.index(emotions[i]) for i in keep])
        figures[f"{name}_wa"] = round(accuracy(truth, prediction), 4)
        figures[f"{name}_uar"] = round(unweighted_average_recall(truth, prediction), 4)
    return figures


def main() -> None:
    """Train on one side of each pair and score the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=["ravdess:nemo", "nemo:ravdess"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=1000, help="per pair, in place of the epochs")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    options = parser.parse_args()
    recipe = recipes.load(options.config)
    epochs = 10
    train = recipe.train.model_copy(
        update={"epochs": epochs, "steps_per_epoch": options.steps // epochs}
    )
    recipe = recipe.model_copy(update={"train": train})
    for pair in options.pairs:
        source, target = (load(name, options.data) for name in pair.split(":"))
        source = [u for u in source if not recipe.emotions or u.emotion in recipe.emotions]
        labels = tuple(sorted({u.emotion for u in source}))
        clips = load_clips(source, options.cache)
        versions = [clips, *load_variants(clips, recipe.augment.variants)]
        features = [load_features(version, recipe.front_end) for version in versions]
        recordings = list(load_clips(target, options.cache))
        emotions = [u.emotion for u in target]
        for seed in options.seeds:
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as run:
                trainer = Trainer(
                    recipe, labels, source, features, Path(run), seed, torch.device("cpu")
                )
                encoder = trainer.fit(([], []))
            network = add_functionals(encoder, recipe, source, features, seed)
            figures = score(network, labels, recordings, emotions)
            far = score(network, labels, [telephone(clip) for clip in recordings], emotions)
            figures["telephone_core_uar"] = far["core_uar"]
            seconds = round(time.perf_counter() - start)
            print(
                json.dumps(
                    {"config": options.config.stem, "pair": pair, "seed": seed, "s": seconds}
                    | figures
                )
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
