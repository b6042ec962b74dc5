"""The decision of a bundle, fitted on speakers that the network never heard.

Figures about these speakers are cross-fitted: each clip is answered by a decision that was fitted
on other speakers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...service.inference.card import Decision
from ...service.inference.graphs import Outputs, softmax
from ...service.inference.head import Head
from .prototypes import Prototypes, answer

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_TEMPERATURES = np.geomspace(0.2, 5.0, 81)
_VOTE_TEMPERATURES = np.geomspace(0.02, 1.0, 13)
_VOTE_WEIGHTS = np.linspace(0.0, 0.6, 13)
_VOTE_SLOTS = 3
_DOMAIN_SLOTS = 5
_ABSTAINED_SHARE = 0.05
_SPEECH_KEPT = 0.99
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Clips of known emotion, as the encoder sees them.

    Attributes:
        embedding: pooled features h, shape ``(clips, D)``.
        truth: index of the emotion, shape ``(clips,)``.
        group: a number per speaker, shape ``(clips,)``.
    """

    embedding: Floats
    truth: Ints
    group: Ints

    def where(self, chosen: NDArray[np.bool_]) -> "Labelled":
        """Some of the clips."""
        return Labelled(self.embedding[chosen], self.truth[chosen], self.group[chosen])


def calibrate(
    head: Head, prototypes: Prototypes, held_out: Labelled, non_speech: Floats
) -> Decision:
    """Fit temperatures, vote weight and thresholds.

    The temperature maximises the likelihood of the clips; then so do the vote's temperature and
    weight. The out-of-domain figure is a logistic curve between speech and non-speech sounds. The
    service abstains on clips that are less certain than 95 % of these, and on clips that are
    farther out of domain than 99 % of them.

    References:
        Guo et al., *On Calibration of Modern Neural Networks*, arXiv 1706.04599, for the
        temperature. Here it is chosen from a grid, and the memory's vote has one of its own.

    Args:
        head: of the bundle.
        prototypes: of its memory.
        held_out: speakers that did not train the network.
        non_speech: embeddings of non-speech sounds, shape ``(n, D)``.
    """
    standard = head.standardise(held_out.embedding)
    projection = head.project(standard)
    logits = head.classify(projection)
    losses = [
        negative_log_likelihood(softmax(logits / np.float32(t)), held_out.truth)
        for t in _TEMPERATURES
    ]
    temperature = float(_TEMPERATURES[int(np.argmin(losses))])
    classifier = softmax(logits / np.float32(temperature))
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
    best = (min(losses), 1.0, 0.0)
    for vote_temperature in _VOTE_TEMPERATURES:
        candidate = decision.model_copy(update={"vote_temperature": float(vote_temperature)})
        vote = prototypes.vote(projection, candidate, logits.shape[1])
        for weight in _VOTE_WEIGHTS:
            mixed = (1 - weight) * classifier + weight * vote
            loss = negative_log_likelihood(mixed, held_out.truth)
            best = min(best, (loss, float(vote_temperature), float(weight)))
    near = prototypes.domain_similarity(standard, _DOMAIN_SLOTS)
    far = prototypes.domain_similarity(head.standardise(non_speech), _DOMAIN_SLOTS)
    slope, midpoint = _fit_logistic(near, far)
    decision = decision.model_copy(
        update={
            "vote_temperature": best[1],
            "vote_weight": round(best[2], 3),
            "domain_slope": slope,
            "domain_midpoint": midpoint,
        }
    )
    found = answer(held_out.embedding, head, prototypes, decision)
    certain = found.probabilities.max(axis=1)
    return decision.model_copy(
        update={
            "low_confidence": round(float(np.quantile(certain, _ABSTAINED_SHARE)), 4),
            "out_of_domain": round(
                max(0.5, float(np.quantile(found.out_of_domain, _SPEECH_KEPT))), 4
            ),
        }
    )


def cross_fit(
    head: Head, prototypes: Prototypes, held_out: Labelled, non_speech: Floats, recorded: Labelled
) -> tuple[Outputs, NDArray[np.bool_]]:
    """Answer clips by decisions that were fitted on other speakers.

    Args:
        head: of the bundle.
        prototypes: of its memory.
        held_out: what decisions are fitted on, clips as recorded and varied ones.
        non_speech: as for :func:`calibrate`.
        recorded: the clips to answer, of the same speakers.

    Returns:
        The answers, and which of them a bundle would have withheld, bool ``(clips,)``.
    """
    groups = np.unique(recorded.group)
    parts: list[tuple[NDArray[np.int64], Outputs, NDArray[np.bool_]]] = []
    for fold in range(min(_FOLDS, len(groups))):
        own = groups[fold :: min(_FOLDS, len(groups))]
        others = held_out.where(~np.isin(held_out.group, own))
        mine = np.isin(recorded.group, own)
        decision = calibrate(
            head, prototypes, others if len(others.truth) else held_out, non_speech
        )
        found = answer(recorded.embedding[mine], head, prototypes, decision)
        withheld = (found.probabilities.max(axis=1) < decision.low_confidence) | (
            found.out_of_domain > decision.out_of_domain
        )
        parts.append((np.flatnonzero(mine), found, withheld))
    order = np.argsort(np.concatenate([place for place, *_ in parts]), kind="stable")
    outputs = Outputs(
        *(np.concatenate(column)[order] for column in zip(*(f for _, f, _ in parts), strict=True))
    )
    return outputs, np.concatenate([withheld for *_, withheld in parts])[order]


def negative_log_likelihood(probabilities: Floats, truth: Ints) -> float:
    """Mean of ``-log p(truth)``, at least 0.

    Args:
        probabilities: shape ``(clips, emotions)``.
        truth: column of each clip's emotion, shape ``(clips,)``.
    """
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


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
