"""AdaBN: the statistics of the target, and no training steps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ....service.inference.head import Head
from ..config import AdaptConfig, StatisticsConfig
from ..head import Floats, Source, Target
from .method import CLOSED, Batch, Method
from .prior import estimate_prior

_LEAST_DEVIATION = 0.1
"""Minimum deviation of a target feature, relative to the source's: it bounds the amplification."""

_FEWEST_CLIPS = 10
"""With fewer clips the statistics stay the source's: those of one clip would be the clip."""

_ROUNDS = 2
"""Of prior and statistics, each estimated from the other."""


def with_statistics(head: Head, target: Target, config: StatisticsConfig) -> Head:
    """Put the target's statistics into a head.

    ``mean = (n m_T + k m_S) / (n + k)`` with n clips, and the same for the logarithm of the
    deviation: few clips leave the source's statistics almost as they are.

    References:
        Li et al., *Revisiting Batch Normalization for Practical Domain Adaptation* (AdaBN), arXiv
        1603.04779: target statistics in every normalisation. Here only in the head's, because the
        encoder is frozen. Schneider et al. (arXiv 2006.16971) shrink them in the same way.

    Args:
        head: of the bundle that is adapted; it is not changed.
        target: the clips.
        config: how much the source's statistics count.

    Examples:
        >>> ones, eye = np.ones(2, np.float32), np.eye(2, dtype=np.float32)
        >>> head = Head(0 * ones, ones, eye, 0 * ones, eye, np.float32(1.0))
        >>> target = Target(np.full((30, 2), 4, np.float32), np.zeros((0, 30, 2), np.float32))
        >>> with_statistics(head, target, StatisticsConfig(mean_clips=30)).mean.tolist()
        [2.0, 2.0]
    """
    count = len(target.pooled)
    if not config.adapt or count < _FEWEST_CLIPS:
        return head
    deviation = np.maximum(target.pooled.std(0), np.float32(_LEAST_DEVIATION) * head.deviation)
    mean_share = np.float32(count / (count + config.mean_clips))
    deviation_share = np.float32(count / (count + config.deviation_clips))
    moved: Floats = head.mean + mean_share * (target.pooled.mean(0) - head.mean)
    scaled: Floats = head.deviation * (deviation / head.deviation) ** deviation_share
    return replace(head, mean=moved, deviation=scaled)


def with_prior_aware_statistics(
    head: Head,
    source: Source,
    target: Target,
    config: AdaptConfig,
    rng: np.random.Generator,
    temperature: float,
) -> Head:
    """Put the target's statistics into a head, less what its shares of the emotions explain.

    The source's features have mean 0 and deviation 1 where every emotion counts alike. Clips that
    are sad for the most part have another mean even without any change of language: that of the
    memory's slots, weighted by the same shares. So shares are estimated, and mean and deviation of
    the target are compared with those of the memory under these shares; twice, each from the other.

    References:
        Gong et al., *Note: Robust Continual Test-time Adaptation*, arXiv 2208.05117, and Zhao et
        al. (DELTA), ICLR 2023, saw that unequal classes bend target statistics, and weigh or
        resample the clips. Here the comparison changes, and not the clips.

    Args:
        head: of the bundle; it is not changed.
        source: the memory.
        target: the clips.
        config: sections ``statistics`` and ``prior``.
        rng: for the estimate of the shares.
        temperature: of the bundle's decision.
    """
    moved = with_statistics(head, target, config.statistics)
    if config.statistics.prior_aware == 0.0 or moved is head:
        return moved
    emotions = len(head.classes)
    open_ = target.open(emotions)
    means, squares = _class_moments(source, emotions)
    known = (np.bincount(source.emotion, minlength=emotions) > 0).astype(np.float32)
    equal = known / known.sum()
    for _ in range(_ROUNDS):
        logits = moved.classify(moved.project(moved.standardise(target.pooled)))
        calibrated = ((logits + np.where(open_, 0.0, CLOSED)) / temperature).astype(np.float32)
        shares = estimate_prior(calibrated, config.prior, open_, rng) * known
        share = np.float32(config.statistics.prior_aware)
        shares = (share * shares / shares.sum() + (1 - share) * equal).astype(np.float32)
        mean, deviation = _moments(shares, means, squares)
        usual_mean, usual = _moments(equal, means, squares)
        # the clips as they would lie if every emotion counted alike
        centred = (target.pooled - target.pooled.mean(0)) * usual / deviation
        offset = target.pooled.std(0) * usual / deviation * (mean - usual_mean)
        even = replace(target, pooled=centred + target.pooled.mean(0) - offset)
        moved = with_statistics(head, even, config.statistics)
    return moved


def _moments(shares: Floats, means: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of the memory under shares of the emotions, shape ``(D,)`` each."""
    mean: Floats = shares @ means
    variance = shares @ squares - mean**2
    return mean, np.sqrt(np.maximum(variance, np.float32(_LEAST_DEVIATION**2)))


def _class_moments(source: Source, emotions: int) -> tuple[Floats, Floats]:
    """Mean and mean square of the slots of each emotion, shape ``(emotions, D)``; 0 without any."""
    member = np.eye(emotions, dtype=np.float32)[source.emotion]
    count = np.maximum(member.sum(0), 1)[:, None]
    features = source.features
    return member.T @ features / count, member.T @ features**2 / count


class AdaBN(Method):
    """Normalise the target by its own mean and variance.

    References:
        Li et al., *Revisiting Batch Normalization for Practical Domain Adaptation*, arXiv
        1603.04779. Theirs adapts every layer; here only the normalisation at the head's entrance,
        by :func:`with_prior_aware_statistics`, which all methods share.
    """

    name = "adabn"
    trains = False

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """Zero: the method takes no steps."""
        return 0.0
