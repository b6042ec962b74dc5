"""The decision of an adapted bundle: its confidence is fitted to the estimated accuracy."""

import numpy as np
import torch
from torch import Tensor

from ...service.inference.card import Decision
from .config import AdaptConfig
from .evidence import core_columns
from .head import AdaptedHead, Source, Target
from .pseudo_labels import prior, vote
from .report import Evidence

_WIDEST = 8.0
"""Maximum factor by which a temperature may change."""
_ROUNDS = 30
_TINY = 1e-8


def adapt_decision(
    base: Decision,
    head: AdaptedHead,
    source: Source,
    target: Target,
    labels: tuple[str, ...],
    evidence: Evidence,
    config: AdaptConfig,
) -> Decision:
    """Make the decision of an adapted head: the base's, with confidence fitted to the evidence.

    It is the base's if no answer has changed.

    Args:
        base: decision of the base.
        head: adapted, in evaluation mode.
        source: the memory.
        target: the clips.
        labels: emotions in the order of the logits.
        evidence: on the adapted head.
        config: which corrections are made.
    """
    if evidence.figures["answers_changed"] == 0:
        return base
    if not config.answer_vote:
        base = base.model_copy(update={"vote_weight": 0.0})
    if config.prior_correction > 0:
        base = correct_prior(base, head, target, config.nnpm.balance, config.prior_correction)
    expected = evidence.estimated_accuracy
    if not config.calibrate or expected is None:
        return base
    return fit_temperatures(base, head, source, target, core_columns(labels), expected.value)


@torch.no_grad()
def correct_prior(
    decision: Decision, head: AdaptedHead, target: Target, balance: float, strength: float
) -> Decision:
    """Move the classifier's answers towards the estimated shares of the emotions.

    References:
        Saerens et al., *Adjusting the Outputs of a Classifier to New a Priori Probabilities*
        (Neural Computation, 2002): answers times the ratio of the priors. Theirs comes from EM,
        which is biased if the source has few clips of an emotion; here it is
        :func:`nnpm.training.adaptation.pseudo_labels.prior`, in one step and part of the way.

    Args:
        decision: of the base.
        head: adapted, in evaluation mode.
        target: the clips.
        balance: of the prior.
        strength: 0 keeps the answers, 1 corrects by the whole ratio.

    Returns:
        The decision with ``strength * log(prior / mean answer)`` added to its ``logit_bias``.
    """
    logits = head.classify(head.project_target(target.pooled)) / decision.temperature
    bias = torch.tensor(decision.logit_bias or [0.0] * logits.shape[1])
    answers = (logits + bias).softmax(1)
    ratio = prior(answers, balance) / answers.mean(0).clamp(min=_TINY)
    moved = bias + strength * ratio.clamp(min=_TINY).log()
    return decision.model_copy(update={"logit_bias": tuple(moved.tolist())})


@torch.no_grad()
def fit_temperatures(
    decision: Decision,
    head: AdaptedHead,
    source: Source,
    target: Target,
    columns: list[int],
    accuracy: float,
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
        head: adapted, in evaluation mode.
        source: the memory.
        target: the clips.
        columns: emotions among which the accuracy was estimated.
        accuracy: estimated, in [0, 1].

    Returns:
        The decision with its temperatures multiplied by one factor between 1/8 and 8.
    """
    projection = head.project_target(target.pooled)
    logits = head.classify(projection) / decision.temperature
    slots = head.project_source(source.pooled)
    votes = vote(projection, slots, source.emotion, logits.shape[1], decision.vote_slots)
    if decision.vote_bias:
        votes = votes + torch.tensor(decision.vote_bias)
    absent = torch.bincount(source.emotion, minlength=logits.shape[1]) == 0
    votes[:, absent] = -torch.inf  # as in the service: an emotion without slots has no votes
    votes = votes / decision.vote_temperature
    bias = torch.tensor(decision.logit_bias or 0.0)  # the temperature does not apply to it

    def confidence(factor: float) -> float:
        return _confidence(logits / factor + bias, votes / factor, decision.vote_weight, columns)

    low, high = -np.log(_WIDEST), np.log(_WIDEST)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if confidence(float(np.exp(middle))) > accuracy else (low, middle)
        )
    factor = float(np.exp(high))
    return decision.model_copy(
        update={
            "temperature": float(np.clip(decision.temperature * factor, 1e-3, 1e3)),
            "vote_temperature": float(np.clip(decision.vote_temperature * factor, 1e-3, 1e3)),
        }
    )


def _confidence(logits: Tensor, votes: Tensor, weight: float, columns: list[int]) -> float:
    """Mean confidence of the service's answer among ``columns``."""
    answer = (1.0 - weight) * logits.softmax(1) + weight * votes.softmax(1)
    answer = answer[:, columns]
    return float((answer.amax(1) / answer.sum(1).clamp(min=_TINY)).mean())
