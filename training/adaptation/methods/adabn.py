"""AdaBN: the statistics of the target, and no training steps."""

import torch
from torch import Tensor

from .method import Batch, Method


class AdaBN(Method):
    """Normalise the target by its own mean and variance.

    References:
        Li et al., *Revisiting Batch Normalization for Practical Domain Adaptation*, arXiv
        1603.04779. Theirs adapts every layer; here only the normalisation at the head's entrance,
        in :class:`nnpm.training.adaptation.head.AdaptedHead`, which all methods share.
    """

    name = "adabn"
    trains = False

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Zero: the method takes no steps."""
        return torch.zeros(())
