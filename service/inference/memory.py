"""The memory, searched: its vote, nearest utterances, distance from everything in it."""

import itertools

import numpy as np

from .answer import Neighbour
from .bundle import Memory
from .card import Decision
from .graphs import Floats, softmax

_MAX_DEVIATION = 4.0  # standardised features are clamped here before distances are taken


class MemoryIndex:
    """Exact nearest-neighbour search over the slots of a memory, by matrix products.

    Args:
        memory: the slots.
        projections: unit features of the slots, shape ``(num_slots, width)``.
        decision: numbers of slots, temperature, biases, and the out-of-domain curve.
        labels: emotions in the order of the logits.
    """

    def __init__(
        self, memory: Memory, projections: Floats, decision: Decision, labels: tuple[str, ...]
    ) -> None:
        # Not the features: they are kept standardised, and take most of the memory.
        self._emotion, self._corpus, self._language = memory.emotion, memory.corpus, memory.language
        self._decision = decision
        self._labels = labels
        self._bias = np.array(decision.vote_bias or np.zeros(len(labels)), np.float32)
        # slots sorted by emotion, so that a vote is one product and one slice per emotion
        order = np.argsort(memory.emotion, kind="stable")
        self._order = order
        # Both matrices are stored feature by feature: the product of one clip with thousands of
        # slots takes as long as reading their bytes, and BLAS reads them faster in this order.
        self._projections = np.ascontiguousarray(projections[order].T)
        self._bounds = np.searchsorted(memory.emotion[order], np.arange(len(labels) + 1))
        self._mean = memory.features.mean(axis=0)
        # Differences below the resolution of float16, in which the memory is stored, mean nothing.
        resolution = 1e-3 * np.abs(self._mean)
        spread = np.maximum(memory.features.std(axis=0), resolution) + np.float32(1e-6)
        # Distances are root mean squares over the features.
        width = np.float32(np.sqrt(memory.features.shape[1]))
        self._scale = 1 / (spread * width)
        self._max_deviation = _MAX_DEVIATION / width
        standard = self._standardise(memory.features)
        self._standard = np.ascontiguousarray(standard.T)
        self._half_squares = np.square(standard).sum(axis=1) / 2

    def vote(self, projection: Floats) -> Floats:
        """Probabilities from the memory alone.

        An emotion's score is the mean similarity of its ``vote_slots`` nearest slots plus its
        ``vote_bias``; probabilities are the softmax of the scores over ``vote_temperature``. So an
        emotion with many source clips has no more votes than one with few, unlike in k nearest
        neighbours over all slots.

        Args:
            projection: unit features, shape ``(n, width)``.

        Returns:
            Shape ``(n, num_emotions)``; rows sum to 1. An emotion without slots gets 0.
        """
        similarities = projection @ self._projections
        scores = np.full((len(projection), len(self._labels)), -np.inf, np.float32)
        for emotion, (start, end) in enumerate(itertools.pairwise(self._bounds)):
            if start < end:
                own = similarities[:, start:end]
                count = min(self._decision.vote_slots, end - start)
                own.partition(-count, axis=1)
                scores[:, emotion] = own[:, -count:].sum(axis=1) / count
        return softmax((scores + self._bias) / np.float32(self._decision.vote_temperature))

    def nearest(self, projection: Floats, count: int) -> tuple[Neighbour, ...]:
        """Find the most similar source utterances of one clip.

        Args:
            projection: unit features, shape ``(width,)``.
            count: how many; all there are, if there are fewer.

        Returns:
            Nearest first.
        """
        if count == 0:
            return ()
        similarities = projection @ self._projections
        nearest = np.argsort(-similarities, kind="stable")[:count]
        return tuple(
            Neighbour(
                emotion=self._labels[self._emotion[slot]],
                similarity=float(np.clip(similarity, -1.0, 1.0)),
                corpus=self._corpus[slot],
                language=self._language[slot],
            )
            for slot, similarity in zip(self._order[nearest], similarities[nearest], strict=True)
        )

    def out_of_domain(self, embedding: Floats) -> Floats:
        """How far clips are from the whole memory, mapped to [0, 1].

        The projection is trained to discard everything but the emotion, so the distance is taken
        between pooled features, standardised over the memory.

        Args:
            embedding: pooled features, shape ``(n, D)``.

        Returns:
            ``1 / (1 + exp(domain_slope * (similarity - domain_midpoint)))``, shape ``(n,)``, where
            the similarity is :meth:`domain_similarity`.

        References:
            Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022,
            which takes the distance to the k-th neighbour of normalised features. Here it is the
            mean over the k nearest, of standardised features: it is a distance, not an angle, so
            that a clip far out in the direction of a slot is not near to it.
        """
        exponent = self._decision.domain_slope * (
            self.domain_similarity(embedding) - self._decision.domain_midpoint
        )
        figure: Floats = 1.0 / (1.0 + np.exp(np.clip(exponent, -50.0, 50.0)))
        return figure

    def domain_similarity(self, embedding: Floats) -> Floats:
        """Minus the mean distance to the nearest ``domain_slots`` slots.

        Args:
            embedding: pooled features, shape ``(n, D)``.

        Returns:
            At most 0, shape ``(n,)``; a distance is the root mean square over the features.
        """
        standard = self._standardise(embedding)
        count = min(self._decision.domain_slots, len(self._half_squares))
        # Half the squared distances, without the term that is the same for all slots.
        halves = standard @ self._standard
        np.subtract(self._half_squares, halves, out=halves)
        halves.partition(count - 1, axis=1)
        squares = 2.0 * halves[:, :count] + np.square(standard).sum(axis=1)[:, None]
        distance: Floats = np.sqrt(np.maximum(squares, 0.0)).mean(axis=1)
        return -distance

    def _standardise(self, features: Floats) -> Floats:
        """Standardise over the memory, clamp long tails, and scale so that a length is an RMS."""
        standard: Floats = (features - self._mean) * self._scale
        np.maximum(standard, -self._max_deviation, out=standard)
        np.minimum(standard, self._max_deviation, out=standard)
        return standard
