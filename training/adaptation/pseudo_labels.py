"""Soft pseudo labels of a whole target set: classifier and memory, centred, balanced, smoothed."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from .config import NNPMConfig

_ROWS_AT_ONCE = 1024
_BALANCING_ROUNDS = 20
_TINY = 1e-8


def vote(projection: Tensor, slots: Tensor, emotion: Tensor, num_emotions: int, k: int) -> Tensor:
    """Mean similarity of each clip with its ``k`` nearest slots of each emotion.

    Args:
        projection: unit features, shape ``(clips, width)``.
        slots: unit features of the memory, shape ``(num_slots, width)``.
        emotion: of the slots, shape ``(num_slots,)``.
        num_emotions: columns; an emotion without slots gets the clip's lowest similarity.
        k: slots per emotion at most.

    Returns:
        Shape ``(clips, num_emotions)``, in [-1, 1].
    """
    rows = []
    for part in torch.split(projection, _ROWS_AT_ONCE):
        similarities = part @ slots.T
        columns = similarities.amin(1, keepdim=True).repeat(1, num_emotions)
        for index in range(num_emotions):
            own = similarities[:, emotion == index]
            if own.shape[1]:
                columns[:, index] = own.topk(min(k, own.shape[1]), dim=1).values.mean(1)
        rows.append(columns)
    return torch.cat(rows)


def prior(answers: Tensor, balance: float) -> Tensor:
    """Estimate the shares of the emotions, between the mean answer and equal shares.

    An estimate by EM from the source classifier's answers is biased if the source has few clips of
    an emotion; equal shares are wrong if the target's are unequal. A mean of both is safer.

    Args:
        answers: probabilities, shape ``(clips, emotions)``.
        balance: 0 takes their mean, 1 equal shares.

    Returns:
        Shares that sum to 1, shape ``(emotions,)``.
    """
    equal = torch.full_like(answers[0], 1.0 / answers.shape[1])
    return balance * equal + (1.0 - balance) * answers.mean(0)


def balanced(answers: Tensor, shares: Tensor) -> Tensor:
    """Rescale the columns until their means are ``shares``; rows still sum to 1.

    References:
        Sinkhorn's iteration, as Caron et al. (SwAV, arXiv 2006.09882) balance their clusters;
        the shares here need not be equal.

    Examples:
        >>> answers = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
        >>> means = balanced(answers, torch.tensor([0.5, 0.5])).mean(0)
        >>> [round(share, 2) for share in means.tolist()]
        [0.5, 0.5]
    """
    answers = answers.clamp(min=_TINY)
    for _ in range(_BALANCING_ROUNDS):
        answers = answers * (shares / answers.mean(0))
        answers = answers / answers.sum(1, keepdim=True)
    return answers


def smoothed(answers: Tensor, projection: Tensor, share: float, neighbours: int) -> Tensor:
    """Mix each clip's answer with the mean answer of its nearest target clips.

    Args:
        answers: probabilities, shape ``(clips, emotions)``.
        projection: unit features of the clips, shape ``(clips, width)``.
        share: of the neighbours' mean; 0 returns the answers.
        neighbours: clips at most.
    """
    count = min(neighbours, len(answers) - 1)
    if share == 0.0 or count < 1:
        return answers
    means = []
    for start in range(0, len(answers), _ROWS_AT_ONCE):
        part = projection[start : start + _ROWS_AT_ONCE]
        similarities = part @ projection.T
        own = torch.arange(start, start + len(part))
        similarities[torch.arange(len(part)), own] = -2.0
        means.append(answers[similarities.topk(count, dim=1).indices].mean(1))
    return (1.0 - share) * answers + share * torch.cat(means)


def confidence(answers: Tensor) -> Tensor:
    """How far answers ``(clips, emotions)`` are from equal shares: 0 if equal, 1 if certain."""
    least = 1.0 / answers.shape[1]
    return (answers.amax(1) - least) / (1.0 - least)


def pseudo_labels(
    config: NNPMConfig, logits: Tensor, projection: Tensor, slots: Tensor, emotion: Tensor
) -> Tensor:
    """Compute the pseudo labels of a target set as a whole.

    References:
        arXiv 2108.08663 takes pseudo labels from the memory. Centring, balance and smoothing over
        the target set are ours: a language may sound louder or sadder than the source, and without
        them one emotion would get most of the clips.

    Args:
        config: which parts are used, and with which weight.
        logits: of the classifier, shape ``(clips, emotions)``.
        projection: unit features of the clips, shape ``(clips, width)``.
        slots: unit features of the memory, shape ``(num_slots, width)``.
        emotion: of the slots, shape ``(num_slots,)``.

    Returns:
        Probabilities, shape ``(clips, emotions)``.
    """
    answers = F.log_softmax(logits, dim=1)
    if config.vote_share > 0:
        votes = vote(projection, slots, emotion, logits.shape[1], config.vote_slots)
        votes = votes - (votes.mean(0) if config.centring else votes.mean())
        votes = votes / votes.std(correction=0).clamp(min=_TINY) * config.vote_sharpness
        share = config.vote_share
        answers = (1.0 - share) * answers + share * F.log_softmax(votes, dim=1)
    found = answers.softmax(1)
    if config.balance > 0:
        found = balanced(found, prior(found, config.balance))
    return smoothed(found, projection, config.smoothing, config.smoothing_neighbours)
