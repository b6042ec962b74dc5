"""The memory condensed to prototypes: a vote and a distance that cost less than a clip's decoding.

Calibration and adaptation compute with them what :mod:`.answer` puts into the graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...service.inference.bundle import Memory
from ...service.inference.card import Decision
from ...service.inference.graphs import Outputs, softmax
from ...service.inference.head import Head

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MAX_PER_EMOTION = 64
"""Most prototypes of an emotion that vote."""

MAX_DOMAIN = 128
"""Most prototypes that the out-of-domain distance is taken from."""

MAX_BYTES = 1_000_000
"""Most bytes of all prototypes: more would pass through the caches for each clip."""

MAX_DEVIATION = 4.0
"""Standardised features are clamped here before distances are taken."""

_VOTING_SHARE = 0.55  # of the bytes


@dataclass(frozen=True, slots=True, eq=False)
class Prototypes:
    """The memory, condensed: what votes, and what distances are taken from.

    Attributes:
        voting: unit projections, shape ``(num_voting, width)``.
        emotion: of each, shape ``(num_voting,)``.
        domain: standardised features, clamped at :data:`MAX_DEVIATION`, shape ``(num_domain, D)``.
    """

    voting: Floats
    emotion: Ints
    domain: Floats

    @classmethod
    def of(cls, head: Head, memory: Memory) -> "Prototypes":
        """Condense a memory; the same memory gives the same prototypes, in any order of slots.

        A prototype is the mean of a speaker's slots: of one emotion, projected, to vote; of all
        emotions, standardised, for distances. Where there are too many speakers, each corpus gets
        as many prototypes as any other, or one per speaker if it has fewer, and speakers who follow
        each other by name share one.
        """
        projection = head.project(memory.features)
        row_bytes = 4 * head.classes.size  # of one prototype per emotion
        most = max(1, min(MAX_PER_EMOTION, int(_VOTING_SHARE * MAX_BYTES) // row_bytes))
        voting, emotions = [], []
        for emotion in np.unique(memory.emotion):
            own = np.flatnonzero(memory.emotion == emotion)
            means = _means(projection, own, memory, most)
            lengths = np.linalg.norm(means, axis=1, keepdims=True)
            voting.append(means / np.maximum(lengths, np.float32(1e-12)))
            emotions += [int(emotion)] * len(means)
        # each emotion takes as many rows of the graph as the largest has prototypes
        room = MAX_BYTES - max(map(len, voting)) * row_bytes
        most = max(1, min(MAX_DOMAIN, room // (4 * memory.features.shape[1])))
        clamped = np.clip(memory.features, -MAX_DEVIATION, MAX_DEVIATION)
        domain = _means(clamped, np.arange(len(clamped)), memory, most)
        return cls(np.concatenate(voting), np.array(emotions, np.int64), domain)

    def vote(self, projection: Floats, decision: Decision, num_emotions: int) -> Floats:
        """Probabilities from the memory alone.

        An emotion's score is the mean similarity of its ``vote_slots`` most similar prototypes plus
        its ``vote_bias``; probabilities are the softmax of the scores over ``vote_temperature``.

        Args:
            projection: unit features z, shape ``(n, width)``.
            decision: number of prototypes, bias, temperature.
            num_emotions: of the card.

        Returns:
            Shape ``(n, num_emotions)``; rows sum to 1. An emotion without prototypes gets 0.
        """
        similarities = projection @ self.voting.T
        scores = np.full((len(projection), num_emotions), -np.inf, np.float32)
        for emotion in np.unique(self.emotion):
            own = np.sort(similarities[:, self.emotion == emotion], axis=1)
            scores[:, emotion] = own[:, -decision.vote_slots :].mean(axis=1)
        bias = np.array(decision.vote_bias or 0.0, np.float32)
        return softmax((scores + bias) / np.float32(decision.vote_temperature))

    def domain_similarity(self, standard: Floats, slots: int) -> Floats:
        """Minus the mean distance to the nearest prototypes.

        Args:
            standard: standardised features x, shape ``(n, D)``.
            slots: how many of the nearest; ``domain_slots`` of a decision.

        Returns:
            At most 0, shape ``(n,)``; a distance is the root mean square over the features.
        """
        clamped = np.clip(standard, -MAX_DEVIATION, MAX_DEVIATION)
        squares = (
            np.square(clamped).sum(axis=1)[:, None]
            + np.square(self.domain).sum(axis=1)
            - 2.0 * clamped @ self.domain.T
        ) / np.float32(clamped.shape[1])
        nearest = np.sort(np.maximum(squares, 0.0), axis=1)[:, :slots]
        similarity: Floats = -np.sqrt(nearest).mean(axis=1)
        return similarity


def answer(embedding: Floats, head: Head, prototypes: Prototypes, decision: Decision) -> Outputs:
    """What the answer part computes, in numpy: for fitting a decision before there is a graph.

    Args:
        embedding: pooled features h, shape ``(n, D)``.
        head: of the bundle.
        prototypes: of its memory.
        decision: of its card.
    """
    standard = head.standardise(embedding)
    projection = head.project(standard)
    logits = head.classify(projection)
    bias = np.array(decision.logit_bias or 0.0, np.float32)
    classifier = softmax(logits / np.float32(decision.temperature) + bias)
    vote = prototypes.vote(projection, decision, logits.shape[1])
    weight = np.float32(decision.vote_weight)
    similarity = prototypes.domain_similarity(standard, decision.domain_slots)
    exponent = np.clip(
        finite_slope(decision) * (similarity - decision.domain_midpoint), -50.0, 50.0
    )
    figure = (1.0 / (1.0 + np.exp(exponent))).astype(np.float32)
    return Outputs((1 - weight) * classifier + weight * vote, figure, embedding, logits)


def finite_slope(decision: Decision) -> float:
    """``domain_slope`` as float32 holds it: an endless slope times no distance is no number."""
    return min(decision.domain_slope, 1e30)


def _means(values: Floats, chosen: Ints, memory: Memory, most: int) -> Floats:
    """Means by speaker of the chosen slots, in order of corpus and speaker; ``most`` at most."""
    speakers: dict[str, dict[str, list[int]]] = {}
    for slot in chosen.tolist():
        name = memory.speaker[slot] if memory.speaker else ""
        speakers.setdefault(memory.corpus[slot], {}).setdefault(name, []).append(slot)
    sizes = _share_out(most, {corpus: len(speakers[corpus]) for corpus in sorted(speakers)})
    means = []
    for corpus, size in sizes.items():
        names = sorted(speakers[corpus])
        for group in np.array_split(np.arange(len(names)), size) if size else []:
            slots = sorted(slot for one in group for slot in speakers[corpus][names[one]])
            means.append(values[slots].astype(np.float64).mean(axis=0))
    return np.array(means, np.float32)


def _share_out(most: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Share ``most`` out as evenly as what is wanted allows; the first get what is left over.

    Examples:
        >>> _share_out(10, {"a": 2, "b": 9, "c": 9}), _share_out(2, {"a": 2, "b": 9, "c": 9})
        ({'a': 2, 'b': 4, 'c': 4}, {'a': 1, 'b': 1, 'c': 0})
    """
    shares = dict.fromkeys(wanted, 0)
    while most > 0 and (open_ones := [one for one in wanted if shares[one] < wanted[one]]):
        step = max(1, most // len(open_ones))
        for one in open_ones[:most]:
            given = min(step, wanted[one] - shares[one], most)
            shares[one] += given
            most -= given
    return shares
