"""Target statistics, and no step."""

import torch
from torch import Tensor

from .method import Batch, Method


class AdaBN(Method):
    """Normalise the target by its own mean and variance.

    References:
        Li et al., *Revisiting Batch Normalization for Practical Domain Adaptation*, arXiv
        1603.04779. Theirs are in every layer, ours at the entrance of the head alone; they are in
        :class:`training.adaptation.head.AdaptedHead`, which all methods share.
    """

    name = "adabn"
    trains = False

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Nothing."""
        return torch.zeros(())
