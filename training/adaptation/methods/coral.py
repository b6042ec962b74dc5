"""Correlation alignment: equal covariances."""

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp

from ...errors import TrainingError
from .method import Batch, Method


def coral_loss(source: Any, target: Any) -> Any:
    """Squared Frobenius distance between two covariances.

    Args:
        source: features, shape ``(num_source, width)``.
        target: features, shape ``(num_target, width)``.

    Returns:
        A scalar, at least 0.

    Raises:
        TrainingError: if a side has a single clip.

    Examples:
        >>> points = anp.array([[1.0, 0.0], [-1.0, 0.0]])  # their variance is 2, and 0
        >>> float(coral_loss(points, points + 3.0)), float(coral_loss(points, points * 2.0))
        (0.0, 36.0)
    """
    if min(len(source), len(target)) < 2:
        raise TrainingError(
            f"coral needs at least 2 source and 2 target clips in a step; "
            f"it has {len(source)} and {len(target)}"
        )
    return anp.sum((_covariance(source) - _covariance(target)) ** 2)


def _covariance(points: Any) -> Any:
    centred = points - anp.mean(points, axis=0)
    return anp.dot(centred.T, centred) / (len(points) - 1)


class Coral(Method):
    """Give the target's projections the covariance of the source's.

    References:
        Sun & Saenko, *Deep CORAL: Correlation Alignment for Deep Domain Adaptation*, arXiv
        1607.01719, equations 1 to 3. Theirs aligns the logits, and is divided by ``4 width^2``;
        here z on the unit sphere, whose covariance has a trace of at most 1 in any width.
    """

    name = "coral"

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """Weighted distance between the covariances of the batch's two sides."""
        distance = coral_loss(batch.source_projection, batch.target_projection)
        return self.config.coral.weight * distance
