"""The learning rate over the steps."""

import math


def warm_cosine(step: int, *, total: int, warmup: float) -> float:
    """Share of the learning rate: a linear rise over ``warmup`` steps under half a cosine."""
    return min(1.0, (step + 1) / max(1.0, warmup)) * 0.5 * (1 + math.cos(math.pi * step / total))
