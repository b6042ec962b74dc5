"""The memory of a trained network, and the decision that turns logits and memory into an answer.

The decision (temperatures, vote weight, thresholds) is fitted on held-out source speakers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...service.inference.bundle import Memory
from ...service.inference.card import Decision
from ...service.inference.first_generation import MemoryIndex
from ...service.inference.graphs import softmax
from ..corpora import Utterance
from ..data.clips import Ragged
from ..data.non_speech import non_speech_sounds
from ..network.network import Network
from ..source.run import TrainingData
from ..source.trainer import embed

Floats = NDArray[np.float32]

_TEMPERATURES = np.geomspace(0.2, 5.0, 81)
_VOTE_TEMPERATURES = np.geomspace(0.02, 1.0, 25)
_VOTE_WEIGHTS = np.linspace(0.0, 0.6, 13)
_VOTE_SLOTS = 20
_DOMAIN_SLOTS = 10
_ABSTAINED_SHARE = 0.05
_SPEECH_KEPT = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a network computes for clips, and the truth if it is known.

    Attributes:
        logits: shape ``(clips, emotions)``.
        embedding: pooled features h, shape ``(clips, D)``.
        projection: unit features z, shape ``(clips, width)``.
        truth: index of the logit, shape ``(clips,)``; empty if unknown.
    """

    logits: Floats
    embedding: Floats
    projection: Floats
    truth: NDArray[np.int64]


def build_memory(network: Network, utterances: Sequence[Utterance], clips: Ragged) -> Memory:
    """Build the memory: one slot per clip of the training side.

    Args:
        network: as trained.
        utterances: the training side.
        clips: their samples, in the same order.
    """
    scores = _scores(network, list(clips), utterances)
    return Memory(
        # what the bundle stores, so that calibration sees what the service will
        features=scores.embedding.astype(np.float16).astype(np.float32),
        emotion=scores.truth,
        corpus=tuple(u.corpus for u in utterances),
        language=tuple(u.language for u in utterances),
    )


def fit_decision(network: Network, memory: Memory, data: TrainingData, seed: int) -> Decision:
    """Fit temperatures, vote weight and thresholds on the validation speakers.

    Args:
        network: as trained.
        memory: of :func:`build_memory`.
        data: of the run.
        seed: of the non-speech sounds.
    """
    validation = data.split.validation
    recorded = data.clips(validation)
    with torch.no_grad():
        slots = network.head.project(torch.from_numpy(memory.features)).numpy()
    # As recorded, and in rooms, noise and codecs: users seldom send studio recordings.
    versions = [recorded, *data.variants(validation)]
    clips = [clip for version in versions for clip in version]
    scores = _scores(network, clips, validation * len(versions))
    non_speech = _scores(network, non_speech_sounds(seed, list(recorded)), [])
    return calibrate(memory, slots, data.labels, scores, non_speech.embedding)


def calibrate(
    memory: Memory,
    slots: Floats,
    labels: tuple[str, ...],
    validation: Scores,
    non_speech: Floats,
) -> Decision:
    """Fit temperatures, vote weight and thresholds.

    The temperature maximises the likelihood of the validation clips; then so do the vote's
    temperature and weight. The out-of-domain figure is a logistic curve between held-out speakers
    and non-speech sounds. The service abstains on clips that are less certain than 95 % of the
    validation clips, and on clips that are farther out of domain than 99 % of them.

    References:
        Guo et al., *On Calibration of Modern Neural Networks*, arXiv 1706.04599, for the
        temperature. Here it is chosen from a grid, and the memory's vote has one of its own.

    Args:
        memory: of the bundle.
        slots: unit projections of its slots, shape ``(num_slots, width)``.
        labels: emotions in the order of the logits.
        validation: speakers that neither trained the network nor test it.
        non_speech: embeddings of non-speech sounds, shape ``(n, D)``.
    """
    losses = [
        negative_log_likelihood(softmax(validation.logits / np.float32(t)), validation.truth)
        for t in _TEMPERATURES
    ]
    temperature = float(_TEMPERATURES[int(np.argmin(losses))])
    decision = Decision(
        temperature=temperature,
        vote_weight=0.0,
        vote_temperature=1.0,
        vote_slots=_VOTE_SLOTS,
        low_confidence=0.0,
        out_of_domain=1.0,
        domain_slots=_DOMAIN_SLOTS,
        domain_midpoint=0.0,
        domain_slope=1.0,
    )
    classifier = softmax(validation.logits / np.float32(temperature))
    best = (min(losses), 1.0, 0.0)
    for vote_temperature in _VOTE_TEMPERATURES:
        candidate = decision.model_copy(update={"vote_temperature": float(vote_temperature)})
        vote = MemoryIndex(memory, slots, candidate, labels).vote(validation.projection)
        for weight in _VOTE_WEIGHTS:
            mixed = (1 - weight) * classifier + weight * vote
            loss = negative_log_likelihood(mixed, validation.truth)
            best = min(best, (loss, float(vote_temperature), float(weight)))
    decision = decision.model_copy(
        update={"vote_temperature": best[1], "vote_weight": round(best[2], 3)}
    )
    index = MemoryIndex(memory, slots, decision, labels)
    mixed = (1 - best[2]) * classifier + best[2] * index.vote(validation.projection)
    near = index.domain_similarity(validation.embedding)
    slope, midpoint = _fit_logistic(near, index.domain_similarity(non_speech))
    decision = decision.model_copy(update={"domain_slope": slope, "domain_midpoint": midpoint})
    figures = MemoryIndex(memory, slots, decision, labels).out_of_domain(validation.embedding)
    return decision.model_copy(
        update={
            "low_confidence": round(float(np.quantile(mixed.max(axis=1), _ABSTAINED_SHARE)), 4),
            "out_of_domain": round(max(0.5, float(np.quantile(figures, _SPEECH_KEPT))), 4),
        }
    )


def negative_log_likelihood(probabilities: Floats, truth: NDArray[np.int64]) -> float:
    """Mean of ``-log p(truth)``, at least 0.

    Args:
        probabilities: shape ``(clips, emotions)``.
        truth: column of each clip's emotion, shape ``(clips,)``.
    """
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def _scores(
    network: Network, clips: Sequence[NDArray[np.float32]], utterances: Sequence[Utterance]
) -> Scores:
    logits, pooled = embed(network, clips, torch.device("cpu"))
    with torch.no_grad():
        projection = network.head.project(pooled)
    truth = np.array([network.labels.index(u.emotion) for u in utterances], np.int64)
    return Scores(logits.numpy(), pooled.numpy(), projection.numpy(), truth)


def _fit_logistic(near: Floats, far: Floats) -> tuple[float, float]:
    """Slope and midpoint of ``p(far | s) = 1 / (1 + exp(slope (s - midpoint)))``, both sides alike.

    Newton's method with a small ridge, so that sides that do not overlap have a finite slope.
    """
    values = np.concatenate([near, far]).astype(np.float64)
    target = np.concatenate([np.zeros(len(near)), np.ones(len(far))])
    weight = np.where(target == 1, 0.5 / len(far), 0.5 / len(near))
    centre, spread = values.mean(), values.std() + 1e-9
    design = np.stack([-(values - centre) / spread, np.ones_like(values)], axis=1)
    theta = np.zeros(2)
    ridge = np.diag([1e-3, 1e-6])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ theta, -40, 40)))
        gradient = design.T @ (weight * (p - target)) + ridge @ theta
        hessian = (design.T * (weight * p * (1 - p))) @ design + ridge
        theta = theta - np.linalg.solve(hessian, gradient)
    slope = max(float(theta[0]) / spread, 1e-3)
    return slope, float(centre + theta[1] / slope)
