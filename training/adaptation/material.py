"""What a method sees of the source and of the target: pooled features, and no audio."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The bundle's memory: the labelled source without its audio.

    Attributes:
        pooled: float32, shape ``(num_slots, D)``.
        emotion: index of the logit, int64, shape ``(num_slots,)``.
    """

    pooled: Tensor
    emotion: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Clips without labels, as the frozen encoder hears them.

    Attributes:
        pooled: of the clips as recorded, float32, shape ``(num_clips, D)``.
        views: of spectral augmentations of the same clips, shape ``(num_views, num_clips, D)``;
            there may be none.
    """

    pooled: Tensor
    views: Tensor
