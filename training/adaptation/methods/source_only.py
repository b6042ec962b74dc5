"""The unchanged model: the baseline of all other methods."""

import torch
from torch import Tensor

from .method import Batch, Method


class SourceOnly(Method):
    """Keep the head and its statistics as they are."""

    name = "source_only"
    trains = False
    target_statistics = False

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Zero: the method takes no steps."""
        return torch.zeros(())
