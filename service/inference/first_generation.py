"""Bundles of the first generation, schema 1: two graphs, and the memory searched as a whole.

They load and answer as they did when they were made, on the processor; nothing makes new ones.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from .answer import Neighbour
from .bundle import Bundle, Memory
from .card import Decision
from .errors import BundleError
from .graphs import (
    Floats,
    Outputs,
    Score,
    checked_session,
    neighbours,
    require_probe,
    shrink_arena,
    softmax,
)

_PROBE_TOLERANCE = 1e-3  # in probability; kernels of other processors differ by about 1e-5
_MAX_DEVIATION = 4.0  # standardised features are clamped here before distances are taken


class FirstModel:
    """What :class:`.graphs.Model` is to a bundle of the second generation.

    Args:
        bundle: a loaded bundle of schema 1.
        threads: used by one inference.

    Raises:
        BundleError: if the graphs cannot run, fail the golden probe, or the memory does not fit.
    """

    outputs: tuple[str, ...] = ("logits", "embedding", "scores")
    """Names of what :meth:`run` gives to users of the Open Inference Protocol."""

    provider = "CPUExecutionProvider"

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self._model = checked_session(bundle.path / "model.onnx", threads, {"waveform", "lengths"})
        self._head = checked_session(bundle.path / "head.onnx", threads, {"embedding"})
        self._decision = bundle.card.decision
        self.width = self._check(bundle)
        """D, the number of features of an embedding."""
        memory = bundle.memory()
        if memory.features.shape[1] != self.width:
            raise BundleError(
                f"The memory of {bundle.path} holds {memory.features.shape[1]} features per "
                f"utterance; its graphs have {self.width}."
            )
        self._memory = MemoryIndex(
            memory, self._project(memory.features), self._decision, bundle.labels
        )

    def run(self, waveform: Floats, lengths: NDArray[np.int64]) -> Outputs:
        """Score the rows of a padded batch, each alone and without its padding.

        Args:
            waveform: float32 in [-1, 1] at 16 kHz, shape ``(batch, num_samples)``, 512 or longer.
            lengths: samples that are not padding, int64, shape ``(batch,)``; 512 or more.
        """
        rows = [self._run_row(row[:length]) for row, length in zip(waveform, lengths, strict=True)]
        return Outputs(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))

    def score(self, samples: Floats) -> Score:
        """Score one window; what neighbours are found by is its unit projection.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape ``(num_samples,)``, 512 or longer.
        """
        logits, embedding = self._encode(samples[None])
        projection = self._project(embedding)
        distance = float(self._memory.out_of_domain(embedding)[0])
        return Score(self._probabilities(logits, projection)[0], distance, projection[0])

    def score_each(self, clips: Iterable[Floats]) -> Iterator[Score]:
        """Score windows in order, one after the other."""
        return map(self.score, clips)

    def release(self) -> None:
        """Return the memory that long windows took and the next would take again."""
        shrink_arena(self._model)

    def nearest(self, embedding: Floats, count: int) -> tuple[Neighbour, ...]:
        """Find the most similar source utterances.

        Args:
            embedding: projection of one clip, or the mean of several, shape ``(width,)``.
            count: how many; all there are, if there are fewer.

        Returns:
            Nearest first.
        """
        return self._memory.nearest(embedding / max(float(np.linalg.norm(embedding)), 1e-6), count)

    def _run_row(self, samples: Floats) -> Outputs:
        logits, embedding = self._encode(samples[None])
        probabilities = self._probabilities(logits, self._project(embedding))
        return Outputs(probabilities, self._memory.out_of_domain(embedding), embedding, logits)

    def _encode(self, waveform: Floats) -> tuple[Floats, Floats]:
        lengths = np.full(len(waveform), waveform.shape[1], np.int64)
        logits, embedding = self._model.run(
            ["logits", "embedding"], {"waveform": waveform, "lengths": lengths}
        )
        return logits, embedding

    def _project(self, embedding: Floats) -> Floats:
        """Embeddings ``(n, D)`` to unit features ``(n, width)``, which the memory compares."""
        projection: Floats = self._head.run(["projection"], {"embedding": embedding})[0]
        return projection

    def _probabilities(self, logits: Floats, projection: Floats) -> Floats:
        """Combine the classifier with the memory's vote, as the card's decision says."""
        weight = np.float32(self._decision.vote_weight)
        bias = np.array(self._decision.logit_bias or 0.0, np.float32)
        probabilities = softmax(logits / np.float32(self._decision.temperature) + bias)
        if weight > 0:
            probabilities = (1 - weight) * probabilities + weight * self._memory.vote(projection)
        return probabilities

    def _check(self, bundle: Bundle) -> int:
        """Run the golden probe; return D."""
        probe = bundle.probe()
        try:
            logits, embedding = self._model.run(
                ["logits", "embedding"],
                {"waveform": probe["waveform"], "lengths": probe["lengths"].astype(np.int64)},
            )
            head_logits, _ = self._head.run(["logits", "projection"], {"embedding": embedding})
            expected = softmax(probe["logits"])
            difference = float(np.abs(softmax(np.stack([logits, head_logits])) - expected).max())
            width = int(embedding.shape[1])
        except Exception as error:  # ONNX Runtime has a dozen types, which all mean the same here
            raise BundleError(f"The graphs of {bundle.path} do not run on its probe.") from error
        if logits.shape != (len(embedding), len(bundle.labels)):
            raise BundleError(
                f"The graphs of {bundle.path} give logits of shape {logits.shape}; its card names "
                f"{len(bundle.labels)} emotions."
            )
        require_probe(bundle, difference, _PROBE_TOLERANCE)
        return width


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
        self._decision = decision
        self._labels = labels
        self._bias = np.array(decision.vote_bias or np.zeros(len(labels)), np.float32)
        # slots sorted by emotion, so that a vote is one product and one slice per emotion
        order = np.argsort(memory.emotion, kind="stable")
        # Not the features: they are kept standardised, and take most of the memory.
        self._slots = Memory(
            memory.features[:0],
            memory.emotion[order],
            tuple(memory.corpus[slot] for slot in order),
            tuple(memory.language[slot] for slot in order),
        )
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
        return neighbours(projection @ self._projections, self._slots, self._labels, count)

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
