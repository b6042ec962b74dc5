"""The memory at work: its vote, its neighbours, and how far a clip lies from all it knows."""

import itertools

import numpy as np

from .answer import Neighbour
from .bundle import Memory
from .card import Decision
from .graphs import Floats, softmax

_FARTHEST = 4.0
"""Of a standardised feature from its mean, when distances are taken."""


class MemoryIndex:
    """Nearest-slot questions, answered by two matrix products.

    Args:
        memory: the slots.
        projections: unit features of the slots, shape ``(num_slots, width)``.
        decision: sizes and temperatures.
        labels: emotions in the order of the logits.
    """

    def __init__(
        self, memory: Memory, projections: Floats, decision: Decision, labels: tuple[str, ...]
    ) -> None:
        # Not the features: they are kept standardised, and are the bulk of it.
        self._emotion, self._corpus, self._language = memory.emotion, memory.corpus, memory.language
        self._decision = decision
        self._labels = labels
        self._bias = np.array(decision.vote_bias or np.zeros(len(labels)), np.float32)
        # slots by emotion, so that a vote is one product and a slice per emotion
        order = np.argsort(memory.emotion, kind="stable")
        self._order = order
        # Both matrices lie feature by feature: the product of one clip with thousands of slots
        # takes as long as their bytes take from memory, and BLAS reads them faster this way.
        self._projections = np.ascontiguousarray(projections[order].T)
        self._bounds = np.searchsorted(memory.emotion[order], np.arange(len(labels) + 1))
        self._centre = memory.features.mean(axis=0)
        # What float16, in which the memory is stored, cannot tell apart says nothing.
        resolution = 1e-3 * np.abs(self._centre)
        spread = np.maximum(memory.features.std(axis=0), resolution) + np.float32(1e-6)
        # Distances are root mean squares over the features.
        width = np.float32(np.sqrt(memory.features.shape[1]))
        self._scale = 1 / (spread * width)
        self._farthest = _FARTHEST / width
        standard = self._standardise(memory.features)
        self._standard = np.ascontiguousarray(standard.T)
        self._half_squares = np.square(standard).sum(axis=1) / 2

    def vote(self, projection: Floats) -> Floats:
        """Probabilities by the memory alone.

        Each emotion's score is the mean similarity of its ``vote_slots`` nearest slots (plus its
        ``vote_bias``), so that an emotion with many source clips has no more votes than one with
        few.

        Args:
            projection: unit features, shape ``(n, width)``.

        Returns:
            Shape ``(n, emotions)``; rows sum to 1. An emotion without slots gets 0.
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
        """The ``count`` most similar source utterances of one clip ``(width,)``, nearest first."""
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
        """How far clips lie from the whole memory.

        The projection is trained to forget what does not tell the emotion; so this looks at the
        pooled features, standardised over the memory. It is a distance, not an angle: what lies
        far out in the direction of some clip is no neighbour of it.

        Args:
            embedding: pooled features, shape ``(n, D)``.

        Returns:
            In [0, 1], shape ``(n,)``.
        """
        exponent = self._decision.domain_slope * (
            self.domain_similarity(embedding) - self._decision.domain_midpoint
        )
        figure: Floats = 1.0 / (1.0 + np.exp(np.clip(exponent, -50.0, 50.0)))
        return figure

    def domain_similarity(self, embedding: Floats) -> Floats:
        """Minus the mean distance to the nearest ``domain_slots`` slots, shape ``(n,)``.

        A distance is the root mean square over the features.
        """
        standard = self._standardise(embedding)
        count = min(self._decision.domain_slots, len(self._half_squares))
        # Half the squared distances, but for a part that is the same for all slots.
        halves = standard @ self._standard
        np.subtract(self._half_squares, halves, out=halves)
        halves.partition(count - 1, axis=1)
        squares = 2.0 * halves[:, :count] + np.square(standard).sum(axis=1)[:, None]
        distance: Floats = np.sqrt(np.maximum(squares, 0.0)).mean(axis=1)
        return -distance

    def _standardise(self, features: Floats) -> Floats:
        """Standardise over the memory, clamp the long tails, and divide so that lengths are RMS."""
        standard: Floats = (features - self._centre) * self._scale
        np.maximum(standard, -self._farthest, out=standard)
        np.minimum(standard, self._farthest, out=standard)
        return standard
