"""AdaBN: the statistics of the target, and no training steps."""

from collections.abc import Mapping
from typing import Any

from .method import Batch, Method


class AdaBN(Method):
    """Normalise the target by its own mean and variance.

    References:
        Li et al., *Revisiting Batch Normalization for Practical Domain Adaptation*, arXiv
        1603.04779. Theirs adapts every layer; here only the normalisation at the head's entrance,
        by :func:`nnpm.training.adaptation.head.with_statistics`, which all methods share.
    """

    name = "adabn"
    trains = False

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """Zero: the method takes no steps."""
        return 0.0
