"""The unchanged model: the baseline of all other methods."""

from collections.abc import Mapping
from typing import Any

from .method import Batch, Method


class SourceOnly(Method):
    """Keep the head and its statistics as they are."""

    name = "source_only"
    trains = False
    target_statistics = False

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """Zero: the method takes no steps."""
        return 0.0
