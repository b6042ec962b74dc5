"""Maximum mean discrepancy: equal means under a bank of kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

from .method import Batch, Method


def squared_distances(points: Any) -> Any:
    """Squared Euclidean distances between all pairs of rows; shape ``(rows, rows)``."""
    square = anp.sum(points**2, axis=1)
    distances = square[:, None] + square[None] - 2.0 * anp.dot(points, points.T)
    return anp.maximum(distances, np.float32(0.0))


def maximum_mean_discrepancy(source: Any, target: Any, bandwidths: Sequence[float]) -> Any:
    """Squared distance between two sets' means, under the mean of a bank of Gaussian kernels.

    ``mean k(s, s') + mean k(t, t') - 2 mean k(s, t)`` over all pairs, each clip with itself as
    well, so that it is never negative and 0 for equal sets. A kernel is
    ``exp(-|x - y|^2 / (bandwidth * median))``, with the median over all pairs of different clips of
    both sides together; no gradient goes through it.

    Args:
        source: features, shape ``(num_source, width)``.
        target: features, shape ``(num_target, width)``.
        bandwidths: in medians, one for each kernel.

    Returns:
        A scalar in [0, 2].

    Examples:
        >>> near, far = np.array([[0.0], [0.1]]), np.array([[9.0], [9.1]])
        >>> same = maximum_mean_discrepancy(near, near, [1.0])
        >>> bool(same < maximum_mean_discrepancy(near, far, [1.0]))
        True
    """
    distances = squared_distances(anp.concatenate([source, target]))
    known = getval(distances)
    # if most clips are equal, the median is 0: any positive width separates the others
    median = max(float(np.median(known[np.triu_indices(len(known), 1)])), 1e-6)
    kernels = [anp.exp(distances * (-1.0 / (width * median))) for width in bandwidths]
    kernel = sum(kernels[1:], start=kernels[0]) / len(kernels)
    n = len(source)
    within = anp.mean(kernel[:n, :n]) + anp.mean(kernel[n:, n:])
    return within - 2.0 * anp.mean(kernel[:n, n:])


class MMD(Method):
    """Give the target's projections the distribution of the source's.

    References:
        Long et al., *Learning Transferable Features with Deep Adaptation Networks* (DAN), arXiv
        1502.02791; Gretton et al., *A Kernel Two-Sample Test*, JMLR 13 (2012), for the median and
        the estimate over all pairs (theirs without bias leaves out each clip with itself). DAN
        takes several layers, an estimate of linear cost, and weights of the kernels by a quadratic
        programme; here z alone, all pairs, and equal weights.
    """

    name = "mmd"

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """Weighted discrepancy between the batch's two sides."""
        section = self.config.mmd
        return section.weight * maximum_mean_discrepancy(
            batch.source_projection, batch.target_projection, section.bandwidths
        )
