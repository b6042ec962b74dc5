"""Which clips are worth a label: typical ones first, then uncertain ones, of many voices.

With few labels typical clips teach most, and uncertain ones only once there are more. Clips that
the model takes for one emotion are clustered, and the densest of each cluster is typical.

References:
    Hacohen et al., *Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets*,
    arXiv 2202.02794 (TypiClust). Theirs clusters all clips; here each answer is clustered by
    itself, half of the budget goes to the smallest margins, and no voice gives more than two clips.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...service.inference.card import Decision
from .clips import Answerer, Clips, Floats, Ints

PER_VOICE = 2
"""Most clips of one voice, as long as there are others."""

_NEIGHBOURS = 10  # whose distance makes a clip dense
_ROUNDS = 25  # of k-means
_VOICE_FEATURES = 32
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Picked:
    """A clip that is worth a label.

    Attributes:
        clip: its index.
        why: typical of its answer, or uncertain between two.
        guess: what the bundle answers, as an index of its labels.
        confidence: of that answer.
    """

    clip: int
    why: Literal["typical", "uncertain"]
    guess: int
    confidence: float


def pick(answerer: Answerer, clips: Clips, decision: Decision, count: int) -> list[Picked]:
    """Choose clips, the most useful first.

    Args:
        answerer: of the bundle.
        clips: that may be labelled.
        decision: of its card.
        count: how many; fewer if there are fewer.

    Returns:
        Half of them typical, then the uncertain ones.
    """
    answers = answerer(clips, decision)
    usable = np.unique(clips.clip)
    features = _per_clip(clips)
    standard = (features - features[usable].mean(0)) / (features[usable].std(0) + 1e-6)
    projection = answerer.head.project(standard.astype(np.float32))
    count = min(count, len(usable))
    voice = _voices(standard, usable, answerer, count)
    chosen: list[Picked] = []

    def take(order: Ints, why: Literal["typical", "uncertain"], most: int) -> None:
        per_voice = np.bincount([voice[one.clip] for one in chosen], minlength=voice.max() + 1)
        done = {one.clip for one in chosen}
        for clip in order.tolist():
            if len(chosen) >= most:
                return
            if clip not in done and per_voice[voice[clip]] < PER_VOICE:
                per_voice[voice[clip]] += 1
                done.add(clip)
                guess = int(answers.prediction[clip])
                sure = float(answers.probabilities[clip, guess])
                chosen.append(Picked(clip, why, guess, sure))

    typical = (count + 1) // 2
    take(_typical(projection, answers.prediction, usable, typical), "typical", typical)
    two = np.sort(answers.probabilities[usable], axis=1)[:, -2:]
    by_margin = usable[np.argsort(two[:, 1] - two[:, 0], kind="stable")]
    take(by_margin, "uncertain", count)
    if len(chosen) < count:  # there are too few voices: better a third clip than none
        voice = np.arange(len(voice))
        take(by_margin, "uncertain", count)
    return chosen


def _per_clip(clips: Clips) -> NDArray[np.float64]:
    total = np.zeros((len(clips), clips.embedding.shape[1]))
    np.add.at(total, clips.clip, clips.embedding * clips.weight[:, None])
    seconds = np.bincount(clips.clip, clips.weight, len(clips))
    mean: NDArray[np.float64] = total / np.maximum(seconds, _TINY)[:, None]
    return mean


def _typical(projection: Floats, prediction: Ints, usable: Ints, count: int) -> Ints:
    """The order in which to take clips: of each answer in turn, the densest of a cluster."""
    queues = []
    for emotion in np.unique(prediction[usable]):
        own = usable[prediction[usable] == emotion]
        points = projection[own].astype(np.float64)
        wanted = max(1, round(count * len(own) / len(usable)))
        cluster = k_means(points, min(wanted, len(own)))
        density = _density(points)
        best = [
            own[inside[np.argmin(density[inside])]]
            for inside in (np.flatnonzero(cluster == one) for one in np.unique(cluster))
        ]
        rest = own[np.argsort(density, kind="stable")]
        queues.append([*best, *(clip for clip in rest if clip not in best)])
    longest = max(map(len, queues))
    turns = (queue[index] for index in range(longest) for queue in queues if index < len(queue))
    return np.array(list(turns), np.int64)


def _density(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance to the nearest neighbours: small where clips are many."""
    distance = np.sqrt(_squares(points, points))
    nearest = np.sort(distance, axis=1)[:, 1 : _NEIGHBOURS + 1]
    density: NDArray[np.float64] = nearest.mean(1) if nearest.shape[1] else np.zeros(len(points))
    return density


def _voices(
    standard: NDArray[np.float64], usable: Ints, answerer: Answerer, count: int
) -> NDArray[np.int64]:
    """A cluster for each clip by what the emotions' directions leave of its features: the voice."""
    directions = answerer.head.classes @ answerer.head.weight
    basis = np.linalg.qr(directions.T.astype(np.float64))[0]
    rest = standard - standard @ basis @ basis.T
    own = rest[usable] - rest[usable].mean(0)
    if own.shape[1] > _VOICE_FEATURES:
        own = own @ np.linalg.svd(own, full_matrices=False)[2][:_VOICE_FEATURES].T
    voice = np.zeros(len(standard), np.int64)
    voice[usable] = k_means(own, min(len(usable), max(count, int(np.sqrt(len(usable))))))
    return voice


def k_means(points: NDArray[np.float64], count: int, seed: int = 0) -> Ints:
    """Cluster points; the same points give the same clusters.

    Args:
        points: shape ``(n, D)``.
        count: of clusters, at most ``n``.
        seed: of the first centres, which are drawn far from each other (k-means++).

    Returns:
        The cluster of each point; fewer clusters where points coincide.

    Examples:
        >>> cluster = k_means(np.array([[0.0], [9.0], [0.1], [9.1]]), 2)
        >>> (cluster == cluster[0]).tolist()
        [True, False, True, False]
    """
    rng = np.random.default_rng(seed)
    centres = points[[rng.integers(len(points))]]
    while len(centres) < count:
        far = _squares(points, centres).min(1)
        total = far.sum()
        if total <= _TINY:
            break
        centres = np.concatenate([centres, points[[rng.choice(len(points), p=far / total)]]])
    cluster = np.zeros(len(points), np.int64)
    for _ in range(_ROUNDS):
        nearest = _squares(points, centres).argmin(1)
        if (nearest == cluster).all():
            break
        cluster = nearest
        for one in np.unique(cluster):
            centres[one] = points[cluster == one].mean(0)
    return cluster


def _squares(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = (
        np.square(points).sum(1)[:, None] + np.square(others).sum(1) - 2 * points @ others.T
    )
    return np.maximum(squares, 0.0)
