"""The external memory: one slot per source utterance."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention


class ExternalMemory(nn.Module):
    """Features of the whole source, each updated when its utterance is seen.

    References:
        arXiv 2108.08663 (external memory); update rule after Zhong et al., *Invariance Matters*,
        CVPR 2019: ``M[i] <- normalise(a M[i] + (1 - a) z_i)``. An utterance drawn twice in a batch
        updates its slot with the mean of its features, so that the result has no order.

    Args:
        emotion: class index of every slot, shape ``(num_slots,)``.
        width: numbers per feature.
        momentum: a; 0 replaces, 1 freezes.

    Examples:
        >>> memory = ExternalMemory(torch.tensor([0, 1]), width=2, momentum=0.5)
        >>> memory.fill(torch.eye(2))
        >>> memory.update(torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
        >>> [round(value, 3) for value in memory.similarities(torch.eye(2))[0].tolist()]
        [0.707, 0.0]
    """

    def __init__(self, emotion: Tensor, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("emotion", emotion)
        self.register_buffer("slots", torch.zeros(len(emotion), width))
        self.emotion: Tensor
        self.slots: Tensor

    @torch.no_grad()
    def fill(self, features: Tensor) -> None:
        """Set every slot; ``features`` has shape ``(num_slots, width)``."""
        self.slots.copy_(F.normalize(features.float(), dim=1))

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """Move slots ``index`` ``(batch,)`` towards ``features`` ``(batch, width)``."""
        slots, place = torch.unique(index, return_inverse=True)
        total = torch.zeros(len(slots), features.shape[1], device=features.device)
        total.index_add_(0, place, features.float())
        seen = F.normalize(total, dim=1)
        mixed = self.momentum * self.slots[slots] + (1.0 - self.momentum) * seen
        self.slots[slots] = F.normalize(mixed, dim=1)

    def similarities(self, features: Tensor) -> Tensor:
        """Cosines of unit features ``(batch, width)`` with the slots: ``(batch, num_slots)``."""
        return features @ self.slots.T
