"""The model as trained: what every other method is measured against."""

import torch
from torch import Tensor

from .method import Batch, Method


class SourceOnly(Method):
    """Change nothing, not even the statistics."""

    name = "source_only"
    trains = False
    target_statistics = False

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Nothing."""
        return torch.zeros(())
