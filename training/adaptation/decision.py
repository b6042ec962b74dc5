"""The decision of an adapted bundle: confidence, biases, and the threshold below which it abstains.

The threshold keeps the share of clips that the base answers: a confidence that is fitted anew must
not silence a model that has become better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...service.inference.card import Decision
from ...service.inference.head import Head
from ..bundle.prototypes import Prototypes, answer
from .config import PriorConfig
from .head import Floats, Ints, Target
from .methods.method import log_softmax
from .methods.prior import estimate_prior

_WIDEST = 8.0
"""Maximum factor by which a temperature may change."""

_ROUNDS = 30
_TINY = 1e-8

MIN_LABELS = 20
"""With fewer labelled clips the confidence is not fitted to them."""

_FULL_BIAS_LABELS = 40
"""With fewer labelled clips the temperature is fitted; from here on, a bias per emotion too."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Answers to the target's clips as the service gives them, with its default emotions.

    Attributes:
        probabilities: among the default emotions, 0 for others, shape ``(clips, emotions)``.
        answered: whether the service answers, shape ``(clips,)``.
    """

    probabilities: Floats
    answered: NDArray[np.bool_]

    @property
    def answers(self) -> Ints:
        """The likeliest emotion of each clip, whether it is answered or not."""
        best: Ints = self.probabilities.argmax(1)
        return best

    @property
    def confidence(self) -> Floats:
        """Probability of the answer, shape ``(clips,)``."""
        sure: Floats = self.probabilities.max(1)
        return sure

    def emotions(self, labels: Sequence[str]) -> dict[str, float]:
        """Share of each emotion in the answers; those without any are left out."""
        shares = np.bincount(self.answers, minlength=len(labels)) / len(self.answers)
        return {name: float(share) for name, share in zip(labels, shares, strict=True) if share}


def serve(
    pooled: Floats,
    head: Head,
    prototypes: Prototypes,
    decision: Decision,
    occurs: Sequence[int] = (),
) -> Served:
    """Answer clips as the service does.

    Args:
        pooled: h, shape ``(clips, D)``.
        head: of the bundle.
        prototypes: of its memory with this head.
        decision: of its card.
        occurs: indices of its default emotions; all if empty.
    """
    found = answer(pooled, head, prototypes, decision)
    probabilities = np.zeros_like(found.probabilities)
    chosen = list(occurs) or list(range(probabilities.shape[1]))
    own = found.probabilities[:, chosen]
    probabilities[:, chosen] = own / np.maximum(own.sum(1, keepdims=True), np.float32(_TINY))
    answered = probabilities.max(1) >= decision.low_confidence
    return Served(probabilities, answered & (found.out_of_domain <= decision.out_of_domain))


def adapt_decision(
    base: Decision,
    before: Served,
    head: Head,
    prototypes: Prototypes,
    target: Target,
    *,
    prior: PriorConfig | None = None,
    accuracy: float | None = None,
    cross_fitted: Floats | None = None,
) -> Decision:
    """Make the decision of an adapted head.

    Args:
        base: decision of the base.
        before: the base's answers to the target's clips.
        head: adapted.
        prototypes: of the memory, with the adapted head.
        target: the clips.
        prior: how the shares of the emotions are estimated, which the answers are corrected by;
            None leaves them as they are: for a head without the target's statistics, and for one
            that learnt the shares.
        accuracy: estimated among the default emotions; the confidence is fitted to it. None keeps
            the base's temperatures.
        cross_fitted: logits of the labelled clips, each from a head that did not know its label,
            shape ``(num_labels, emotions)``; with :data:`MIN_LABELS` clips or more the confidence
            is fitted to the labels instead.

    Returns:
        The base's decision, but for temperatures and biases where there is something to fit them
        to, and for both thresholds, which are set so that at least as many of these clips are
        answered as the base answers.
    """
    decision = base
    if prior is not None and prior.correct:
        decision = correct_prior(base, head, target, prior)
    if cross_fitted is not None and len(cross_fitted) >= MIN_LABELS:
        decision = fit_labels(decision, cross_fitted, target)
    elif accuracy is not None:
        decision = fit_temperatures(decision, head, prototypes, target, accuracy)
    return keep_answering(decision, before, head, prototypes, target)


def correct_prior(decision: Decision, head: Head, target: Target, config: PriorConfig) -> Decision:
    """Correct classifier and vote by the target's shares of the emotions.

    The network learnt from equal shares. Where an emotion is rare or does not occur, equal shares
    give it clips of others.

    References:
        Saerens et al., Neural Computation 2002; Garg et al. (RLSbench, arXiv 2302.03020) found
        such a correction, after adaptation, to repair most of what unequal shares cost.

    Args:
        decision: of the base; its biases, which are another target's if it has some, are replaced.
        head: adapted.
        target: the clips, and the emotions that occur.
        config: of the estimate; an emotion that seems absent keeps the share ``least``.
    """
    logits = head.classify(head.project(head.standardise(target.pooled)))
    open_ = target.open(logits.shape[1])
    logits = np.where(open_, logits / np.float32(decision.temperature), np.float32(-1e4))
    rng = np.random.default_rng(0)  # the same correction for every seed
    shares = estimate_prior(logits, config, open_, rng)
    ratio = np.maximum(shares, np.float32(config.least)) * np.float32(open_.sum())
    bias = np.where(open_, np.log(ratio), 0.0)
    return decision.model_copy(
        update={
            "logit_bias": tuple(bias.round(6).tolist()),
            "vote_bias": tuple((decision.vote_temperature * bias).round(6).tolist()),
        }
    )


def fit_temperatures(
    decision: Decision, head: Head, prototypes: Prototypes, target: Target, accuracy: float
) -> Decision:
    """Scale both temperatures until the mean confidence on the target is ``accuracy``.

    Temperatures that are fitted on the source's speakers give too much confidence in another
    language. Without labels they cannot be fitted there, but the mean of a calibrated confidence is
    the accuracy, and the accuracy can be estimated.

    References:
        The constraint is that of Guillory et al. (*Predicting with Confidence on Unseen
        Distributions*, arXiv 2107.03315), reversed: they predict accuracy from confidence.

    Args:
        decision: of the base.
        head: adapted.
        prototypes: of the memory, with this head.
        target: the clips, and the emotions that occur.
        accuracy: estimated, in [0, 1].

    Returns:
        The decision with its temperatures multiplied by one factor between 1/8 and 8.
    """

    def scaled(factor: float) -> Decision:
        return decision.model_copy(
            update={
                name: float(np.clip(getattr(decision, name) * factor, 1e-3, 1e3))
                for name in ("temperature", "vote_temperature")
            }
        )

    low, high = -np.log(_WIDEST), np.log(_WIDEST)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        tried = scaled(float(np.exp(middle)))
        sure = serve(target.pooled, head, prototypes, tried, target.occurs).confidence.mean()
        low, high = (middle, high) if sure > accuracy else (low, middle)
    return scaled(float(np.exp(high)))


def fit_labels(decision: Decision, logits: Floats, target: Target) -> Decision:
    """Fit temperature, and from 40 labels on a bias per emotion, to labelled clips.

    References:
        Guo et al., arXiv 1706.04599: temperature scaling; Kull et al. and Alexandari et al. (arXiv
        1901.06852) add the bias. Here both are drawn to no change, with the weight of ten clips.

    Args:
        decision: of the base.
        logits: of the labelled clips, each from a head that did not know its label.
        target: gives the labels and the emotions that occur.

    Returns:
        The decision without the memory's vote, which was not fitted with these clips.
    """
    open_ = target.open(logits.shape[1])
    masked = np.where(open_, logits, np.float32(-1e4)).astype(np.float64)
    given = np.eye(logits.shape[1])[target.emotion]
    best, bias = float(decision.temperature), np.array(decision.logit_bias or np.zeros(len(open_)))
    first, start = best, bias.copy()
    with_bias = len(logits) >= _FULL_BIAS_LABELS
    for _ in range(20):
        tried = np.exp(np.linspace(np.log(first / _WIDEST), np.log(first * _WIDEST), 161))
        costs = [
            -(given * log_softmax(masked / one + bias)).sum() + 10 * np.log(one / first) ** 2
            for one in tried
        ]
        best = float(tried[int(np.argmin(costs))])
        if not with_bias:
            break
        for _ in range(50):  # the bias by gradient: the problem is convex
            slope = (np.exp(log_softmax(masked / best + bias)) - given).sum(0)
            bias = bias - (slope + 10 * (bias - start)) / (len(logits) + 10)
    update: dict[str, object] = {"temperature": float(np.clip(best, 1e-3, 1e3)), "vote_weight": 0.0}
    if with_bias:
        update["logit_bias"] = tuple(np.where(open_, bias, start).round(6).tolist())
    return decision.model_copy(update=update)


def keep_answering(
    decision: Decision, before: Served, head: Head, prototypes: Prototypes, target: Target
) -> Decision:
    """Set the thresholds so that at least as many clips are answered as before.

    Confidence first: it is the abstention that a fitted temperature changes. The out-of-domain
    threshold rises only where clips inside it are too few.

    Args:
        decision: with its final temperatures.
        before: the base's answers to the same clips.
        head: adapted.
        prototypes: of the memory, with this head.
        target: the clips.
    """
    wanted = int(before.answered.sum())
    found = answer(target.pooled, head, prototypes, decision)
    served = serve(target.pooled, head, prototypes, decision, target.occurs)
    far = np.sort(found.out_of_domain)
    out_of_domain = decision.out_of_domain
    if wanted and far[wanted - 1] > out_of_domain:
        out_of_domain = _above(far[wanted - 1])
    inside = np.sort(served.confidence[found.out_of_domain <= out_of_domain])[::-1]
    low_confidence = decision.low_confidence
    if wanted and len(inside) >= wanted:
        # halfway to the next clip, so that rounding in the graph does not silence the last one
        last = float(inside[wanted - 1])
        following = float(inside[wanted]) if len(inside) > wanted else 0.0
        low_confidence = max(0.0, min(last - 1e-4, (last + following) / 2))
    return decision.model_copy(
        update={"low_confidence": low_confidence, "out_of_domain": out_of_domain}
    )


def _above(value: np.float32) -> float:
    return min(1.0, float(value) + 1e-4)
