"""The losses of source learning."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention


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
