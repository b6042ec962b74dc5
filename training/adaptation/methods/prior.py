"""The shares of the emotions in the target, estimated without labels."""

import numpy as np
from numpy.typing import NDArray

from ..config import PriorConfig
from ..head import Floats
from .method import softmax

_ROUNDS = 100
_UPPER = 0.95
_TINY = 1e-8


def estimate_prior(
    logits: Floats, config: PriorConfig, open_: NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    """Estimate shares from calibrated answers: EM, bootstrap, and shrinkage to equal shares.

    References:
        Saerens et al., *Adjusting the Outputs of a Classifier to New a Priori Probabilities*,
        Neural Computation 2002, for EM; Alexandari et al., arXiv 1901.06852, found it the best of
        its kind on calibrated outputs. It assumes that speech of one emotion looks the same in both
        languages, which is true in part; so equal shares count as ``shrink_clips`` clips, and the
        bootstrap (ours) says which emotions so many clips can exclude.

    Args:
        logits: over the temperature, shape ``(clips, emotions)``; the classifier's own prior is
            taken to be equal shares, because training draws every emotion alike.
        config: numbers of the estimate.
        open_: emotions that may occur.
        rng: draws the bootstrap's samples.

    Returns:
        Shares that sum to 1, 0 for an emotion that is closed, float32, shape ``(emotions,)``.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> truth = np.repeat([0, 1, 2], [150, 50, 0])
        >>> logits = (3.0 * np.eye(3)[truth] + rng.normal(size=(200, 3))).astype(np.float32)
        >>> found = estimate_prior(logits, PriorConfig(), np.ones(3, bool), rng)
        >>> [round(float(share), 1) for share in found]
        [0.7, 0.3, 0.0]
    """
    equal = open_ / np.float32(max(1, open_.sum()))
    if not config.estimate:
        return equal.astype(np.float32)
    answers = softmax(logits)[:, open_]
    count = len(answers)
    # the first sample is the clips themselves
    samples = np.ones((1 + config.bootstrap, count), np.float32)
    samples[1:] = rng.multinomial(count, np.full(count, 1 / count), size=config.bootstrap)
    found = _maximise(answers, samples)
    upper = np.quantile(found[1:], _UPPER, axis=0)
    kept = upper >= config.closed_below
    kept[found[0].argmax()] = True
    share = count / (count + config.shrink_clips)
    shares = share * found[0] + (1.0 - share) / kept.sum()
    shares = np.where(kept, np.maximum(shares, config.least), 0.0)
    whole = np.zeros(len(open_), np.float32)
    whole[open_] = shares / shares.sum()
    return whole


def _maximise(answers: Floats, samples: Floats) -> Floats:
    """Shares of greatest likelihood for each sample of the clips; shape ``(samples, emotions)``."""
    shares = np.full((len(samples), answers.shape[1]), 1 / answers.shape[1], np.float32)
    for _ in range(_ROUNDS):
        likelihood = np.maximum(shares @ answers.T, np.float32(_TINY))  # (samples, clips)
        shares = shares * ((samples / likelihood) @ answers)
        shares /= shares.sum(1, keepdims=True)
    return shares
