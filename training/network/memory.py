"""The external memory, one slot per source utterance, and the losses that are computed with it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention


class ExternalMemory(nn.Module):
    """Unit features of the whole source; each slot is updated when its utterance is in a batch.

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
        """Set every slot to the direction of ``features``, shape ``(num_slots, width)``."""
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


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy against distributions, per clip.

    Args:
        logits: shape ``(batch, emotions)``.
        target: rows that sum to 1, same shape; a row of zeros costs nothing.

    Returns:
        Shape ``(batch,)``, at least 0.
    """
    return -(target * F.log_softmax(logits, dim=1)).sum(1)


def smooth_one_hot(index: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Class indices ``(batch,)`` to smoothed distributions ``(batch, num_classes)``."""
    one_hot = F.one_hot(index, num_classes).float()
    return one_hot * (1.0 - smoothing) + smoothing / num_classes


def multilabel_loss(
    similarities: Tensor,
    positives: Tensor,
    positive_weight: float,
    hard_negative_share: float,
    own: Tensor | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    """Pull a clip to its positive slots and push it from the hardest negatives.

    ``positive_weight * mean_p (1 - s_p)^2 + mean_n (1 + s_n)^2``, where n runs over the
    ``hard_negative_share`` most similar negatives.

    References:
        Wang & Zhang, *Unsupervised Person Re-ID via Multi-Label Classification* (MMCL), CVPR 2020,
        equation 7, as arXiv 2108.08663 takes it up. With a true multilabel (source learning) the
        positives are all slots of the clip's emotion; its own slot is left out, or it would be the
        only easy positive.

    Args:
        similarities: cosines with the slots, shape ``(batch, num_slots)``.
        positives: bool, same shape.
        positive_weight: delta.
        hard_negative_share: in (0, 1], of each clip's negatives; at least one is taken.
        own: slot of each clip, shape ``(batch,)``, or None where clips have none.
        negatives: bool, same shape; None for all that are no positives.

    Returns:
        Loss per clip, shape ``(batch,)``; a clip without positives costs only its negatives.
    """
    negatives = ~positives if negatives is None else negatives
    if own is not None:
        positives = positives.scatter(1, own[:, None], False)
    count = positives.sum(1).clamp(min=1)
    attract = ((1.0 - similarities).square() * positives).sum(1) / count

    keep = (negatives.sum(1).float() * hard_negative_share).ceil().clamp(min=1)
    hardest, _ = similarities.masked_fill(~negatives, -1.0).topk(int(keep.max()), dim=1)
    rank = torch.arange(hardest.shape[1], device=hardest.device)
    chosen = (rank < keep[:, None]).float()
    repel = ((1.0 + hardest).square() * chosen).sum(1) / chosen.sum(1)
    return positive_weight * attract + repel
