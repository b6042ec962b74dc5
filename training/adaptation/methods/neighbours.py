"""Neighbours, votes and voices: what a target set and a memory say of each other."""

import numpy as np

from ..head import Floats, Ints, Source

_ROWS_AT_ONCE = 1024
_ROUNDS = 20
_RIDGE = 0.1
"""Of the covariance within a speaker, relative to its mean variance."""


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


def confidence(answers: Floats, num_open: int) -> Floats:
    """How far answers ``(clips, emotions)`` are from equal shares: 0 if equal, 1 if certain.

    Args:
        answers: probabilities.
        num_open: emotions that may occur.
    """
    least = 1.0 / max(2, num_open)
    above: Floats = np.maximum(answers.max(1) - least, 0) / (1.0 - least)
    return above.astype(np.float32)


def voice_space(source: Source, width: int) -> Floats:
    """Directions in which the memory's speakers differ, whatever their emotion.

    References:
        Linear discriminants, as they were used for i-vectors (Dehak et al., IEEE Transactions on
        Audio, Speech and Language Processing 2011).

    Args:
        source: the memory.
        width: directions at most; there are no more than speakers less one.

    Returns:
        Shape ``(D, directions)``; for standardised features.
    """
    features = source.features
    emotion = np.eye(int(source.emotion.max()) + 1, dtype=np.float32)[source.emotion]
    usual = emotion.T @ features / np.maximum(emotion.sum(0)[:, None], 1)
    member = np.eye(int(source.speaker.max()) + 1, dtype=np.float32)[source.speaker]
    count = member.sum(0)[:, None]
    means = member.T @ (features - usual[source.emotion]) / np.maximum(count, 1)
    rest = features - means[source.speaker]  # emotions are among it: they tell no voice
    within = rest.T @ rest / np.float32(len(rest))
    ridge = np.float32(_RIDGE * np.trace(within) / len(within))
    variance, direction = np.linalg.eigh(within + ridge * np.eye(len(within), dtype=np.float32))
    white = direction / np.sqrt(variance)
    _, _, axes = np.linalg.svd(np.sqrt(count) * means @ white, full_matrices=False)
    speakers = int((count > 0).sum())
    space: Floats = (white @ axes[: min(width, max(1, speakers - 1))].T).astype(np.float32)
    return space


def voices(pooled: Floats, count: int, rng: np.random.Generator) -> Ints:
    """Cluster clips by voice: k-means.

    References:
        Lin et al., *Unsupervised Person Re-identification via Camera-Aware Similarity Consistency
        Learning*, and Wang et al., arXiv 2012.10674, cluster pictures by camera, since neighbours
        of the same camera mislead. Here the voice is the camera.

    Args:
        pooled: in the directions of :func:`voice_space`, shape ``(clips, directions)``.
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
