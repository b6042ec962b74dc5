"""Maximum mean discrepancy: equal means under a bank of kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .method import Batch, Method


def squared_distances(points: Tensor) -> Tensor:
    """Squared Euclidean distances between all pairs of rows; shape ``(rows, rows)``."""
    square = points.square().sum(1)
    return (square[:, None] + square - 2.0 * points @ points.T).clamp(min=0.0)


def maximum_mean_discrepancy(source: Tensor, target: Tensor, bandwidths: Sequence[float]) -> Tensor:
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
        >>> near, far = torch.tensor([[0.0], [0.1]]), torch.tensor([[9.0], [9.1]])
        >>> maximum_mean_discrepancy(near, near, [1.0]) < maximum_mean_discrepancy(near, far, [1.0])
        tensor(True)
    """
    points = torch.cat([source, target])
    distances = squared_distances(points)
    pairs = torch.triu_indices(len(points), len(points), offset=1)
    # if most clips are equal, the median is 0: any positive width separates the others
    median = distances.detach()[pairs[0], pairs[1]].median().clamp(min=1e-6)
    kernel = torch.stack([(-distances / (width * median)).exp() for width in bandwidths]).mean(0)
    n = len(source)
    within = kernel[:n, :n].mean() + kernel[n:, n:].mean()
    return within - 2.0 * kernel[:n, n:].mean()


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

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Weighted discrepancy between the batch's two sides."""
        section = self.config.mmd
        return section.weight * maximum_mean_discrepancy(
            batch.source_projection, batch.target_projection, section.bandwidths
        )
