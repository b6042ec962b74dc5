"""Soft pseudo labels of a whole target set: classifier and memory, centred, balanced, smoothed."""

import numpy as np
from numpy.typing import NDArray

from ..config import NNPMConfig
from ..head import Floats, Ints
from .method import log_softmax, softmax

_ROWS_AT_ONCE = 1024
_ROUNDS = 20
_TINY = 1e-8


def vote(projection: Floats, slots: Floats, emotion: Ints, num_emotions: int, k: int) -> Floats:
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
    found = np.empty((len(projection), num_emotions), np.float32)
    for start in range(0, len(projection), _ROWS_AT_ONCE):
        similarities = projection[start : start + _ROWS_AT_ONCE] @ slots.T
        rows = slice(start, start + len(similarities))
        found[rows] = similarities.min(1, keepdims=True)
        for index in np.unique(emotion):
            own = similarities[:, emotion == index]
            count = min(k, own.shape[1])
            found[rows, index] = np.partition(own, -count, axis=1)[:, -count:].mean(1)
    return found


def balanced(answers: Floats, shares: Floats, strength: float = 1.0) -> Floats:
    """Rescale the columns until their means are ``shares``; rows still sum to 1.

    Args:
        answers: probabilities, shape ``(clips, emotions)``.
        shares: sum to 1, shape ``(emotions,)``.
        strength: 1 goes all the way; less mixes ``shares`` with the answers' own means.

    References:
        Sinkhorn's iteration, as Caron et al. (SwAV, arXiv 2006.09882) balance their clusters;
        the shares here need not be equal.

    Examples:
        >>> answers = np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)
        >>> means = balanced(answers, np.array([0.5, 0.5], np.float32)).mean(0)
        >>> [round(float(share), 2) for share in means]
        [0.5, 0.5]
    """
    wanted = strength * shares + (1.0 - strength) * answers.mean(0)
    moved: Floats = np.maximum(answers, np.float32(_TINY))
    for _ in range(_ROUNDS):
        moved = moved * (wanted / np.maximum(moved.mean(0), np.float32(_TINY)))
        moved = moved / np.maximum(moved.sum(1, keepdims=True), np.float32(_TINY))
    return moved.astype(np.float32)


def neighbours(projection: Floats, count: int, voice: Ints | None = None) -> Ints:
    """The nearest target clips of each clip, itself not among them.

    Args:
        projection: unit features of the clips, shape ``(clips, width)``.
        count: neighbours; fewer if there are fewer other clips.
        voice: number of each clip's voice; neighbours then are of other voices. None takes all.

    Returns:
        Indices, shape ``(clips, count)``; a clip that lacks neighbours of other voices gets itself.
    """
    count = min(count, len(projection) - 1)
    found = np.empty((len(projection), count), np.int64)
    for start in range(0, len(projection), _ROWS_AT_ONCE):
        part = projection[start : start + _ROWS_AT_ONCE]
        similarities = part @ projection.T
        own = np.arange(start, start + len(part))
        if voice is not None:
            similarities[voice[own][:, None] == voice[None]] = -2.0
        similarities[np.arange(len(part)), own] = -2.0
        best = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
        usable = np.take_along_axis(similarities, best, axis=1) > -2.0
        found[own] = np.where(usable, best, own[:, None])
    return found


def smoothed(answers: Floats, nearest: Ints, share: float) -> Floats:
    """Mix each clip's answer with the mean answer of its neighbours.

    Args:
        answers: probabilities, shape ``(clips, emotions)``.
        nearest: from :func:`neighbours`.
        share: of the neighbours' mean; 0 returns the answers.
    """
    if share == 0.0 or nearest.shape[1] == 0:
        return answers
    mixed: Floats = (1.0 - share) * answers + share * answers[nearest].mean(1)
    return mixed


def confidence(answers: Floats, num_open: int) -> Floats:
    """How far answers ``(clips, emotions)`` are from equal shares: 0 if equal, 1 if certain.

    Args:
        answers: probabilities.
        num_open: emotions that may occur.
    """
    least = 1.0 / max(2, num_open)
    above: Floats = np.maximum(answers.max(1) - least, 0) / (1.0 - least)
    return above.astype(np.float32)


def voices(pooled: Floats, count: int, rng: np.random.Generator) -> Ints:
    """Cluster clips by voice: k-means on standardised features without their emotion.

    References:
        Lin et al., *Unsupervised Person Re-identification via Camera-Aware Similarity Consistency
        Learning*, and Wang et al., arXiv 2012.10674: neighbours of the same camera mislead. Here
        the voice is the camera.

    Args:
        pooled: shape ``(clips, D)``, for example x less its part in the projection.
        count: clusters; at most one per clip.
        rng: draws the first centres.

    Returns:
        Number of the cluster, shape ``(clips,)``.
    """
    count = min(count, len(pooled))
    centres = pooled[rng.choice(len(pooled), count, replace=False)]
    cluster = np.zeros(len(pooled), np.int64)
    for _ in range(_ROUNDS):
        distance = np.square(centres).sum(1) - 2.0 * pooled @ centres.T
        cluster = distance.argmin(1)
        member = np.eye(count, dtype=np.float32)[cluster]
        size = member.sum(0)[:, None]
        centres = np.where(size > 0, member.T @ pooled / np.maximum(size, 1), centres)
    return cluster


def pseudo_labels(
    config: NNPMConfig,
    logits: Floats,
    votes: Floats,
    nearest: Ints,
    shares: Floats,
    open_: NDArray[np.bool_],
) -> Floats:
    """Compute the pseudo labels of a target set as a whole.

    References:
        arXiv 2108.08663 takes pseudo labels from the memory. Centring, balance and smoothing over
        the target set are ours: a language may sound louder or sadder than the source, and without
        them one emotion would get most of the clips.

    Args:
        config: which parts are used, and with which weight.
        logits: of the classifier, shape ``(clips, emotions)``.
        votes: similarities with the memory, same shape: see :func:`vote`.
        nearest: neighbours of each clip: see :func:`neighbours`.
        shares: estimated shares of the emotions; 0 closes an emotion.
        open_: emotions that may occur.

    Returns:
        Probabilities, shape ``(clips, emotions)``.
    """
    allowed = open_ & (shares > 0)
    answers = log_softmax(logits)
    if config.vote_share > 0:
        centred = votes - (votes.mean(0) if config.centring else votes.mean())
        spread = np.maximum(centred[:, allowed].std(), np.float32(_TINY))
        share = np.float32(config.vote_share)
        own = log_softmax(centred / spread * np.float32(config.vote_sharpness))
        answers = (1 - share) * answers + share * own
    found = softmax(np.where(allowed, answers, np.float32(-1e4)))
    if config.balance > 0:
        found = balanced(found, shares, config.balance)
    return smoothed(found, nearest, config.smoothing)
