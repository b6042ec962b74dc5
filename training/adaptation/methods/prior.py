"""The shares of the emotions in the target, estimated without labels, and how sure they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import PriorConfig
from ..head import Floats
from .method import softmax

_ROUNDS = 100
_UPPER = 0.95
_TINY = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Estimated shares of the emotions.

    Attributes:
        shares: sum to 1, 0 for an emotion that is closed, float32, shape ``(emotions,)``.
        upper: upper ends of the bootstrap's intervals, same shape.
        doubt: mean distance (half the sum of differences) of a bootstrap estimate from their mean,
            in [0, 1].
    """

    shares: Floats
    upper: Floats
    doubt: float


def estimate_prior(
    logits: Floats, config: PriorConfig, open_: NDArray[np.bool_], rng: np.random.Generator
) -> Prior:
    """Estimate shares from calibrated answers: EM, bootstrap, and shrinkage to equal shares.

    References:
        Saerens et al., *Adjusting the Outputs of a Classifier to New a Priori Probabilities*,
        Neural Computation 2002, for EM; Alexandari et al., arXiv 1901.06852, found it the best of
        its kind on calibrated outputs. It assumes that speech of one emotion looks the same in both
        languages, which is true in part; so equal shares count as ``shrink_clips`` clips, and the
        bootstrap (ours) says how far clips of this number can tell.

    Args:
        logits: over the temperature, shape ``(clips, emotions)``; the classifier's own prior is
            taken to be equal shares, because training draws every emotion alike.
        config: numbers of the estimate.
        open_: emotions that may occur.
        rng: draws the bootstrap's samples.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> truth = np.repeat([0, 1, 2], [150, 50, 0])
        >>> logits = (3.0 * np.eye(3)[truth] + rng.normal(size=(200, 3))).astype(np.float32)
        >>> found = estimate_prior(logits, PriorConfig(), np.ones(3, bool), rng)
        >>> [round(float(share), 1) for share in found.shares], found.doubt < 0.1
        ([0.7, 0.3, 0.0], True)
    """
    equal = open_ / np.float32(max(1, open_.sum()))
    if not config.estimate:
        return Prior(equal.astype(np.float32), np.ones_like(equal, np.float32), 0.0)
    answers = softmax(logits)[:, open_]
    count = len(answers)
    # the first sample is the clips themselves
    samples = np.ones((1 + config.bootstrap, count), np.float32)
    samples[1:] = rng.multinomial(count, np.full(count, 1 / count), size=config.bootstrap)
    found = _maximise(answers, samples)
    upper = np.quantile(found[1:], _UPPER, axis=0)
    doubt = float(0.5 * np.abs(found[1:] - found[1:].mean(0)).sum(1).mean())
    kept = upper >= config.closed_below
    kept[found[0].argmax()] = True
    share = count / (count + config.shrink_clips)
    shares = share * found[0] + (1.0 - share) / kept.sum()
    shares = np.where(kept, np.maximum(shares, config.least), 0.0)
    return Prior(_spread(shares / shares.sum(), open_), _spread(upper, open_), doubt)


def _spread(values: NDArray[np.floating], open_: NDArray[np.bool_]) -> Floats:
    whole = np.zeros(len(open_), np.float32)
    whole[open_] = values
    return whole


def _maximise(answers: Floats, samples: Floats) -> Floats:
    """Shares of greatest likelihood for each sample of the clips; shape ``(samples, emotions)``."""
    shares = np.full((len(samples), answers.shape[1]), 1 / answers.shape[1], np.float32)
    for _ in range(_ROUNDS):
        likelihood = np.maximum(shares @ answers.T, np.float32(_TINY))  # (samples, clips)
        shares = shares * ((samples / likelihood) @ answers)
        shares /= shares.sum(1, keepdims=True)
    return shares
