import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.service.inference.bundle import Memory
from nnpm.service.inference.card import Decision
from nnpm.service.inference.first_generation import MemoryIndex
from nnpm.service.inference.graphs import softmax
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.decision import adapt_decision, correct_prior, fit_temperatures
from nnpm.training.adaptation.head import Source
from nnpm.training.adaptation.report import Estimate, Evidence

LABELS = ("angry", "happy", "neutral", "sad")
BASE = Decision(
    temperature=1.7,
    vote_weight=0.4,
    vote_temperature=0.2,
    vote_slots=3,
    low_confidence=0.4,
    out_of_domain=0.9,
    domain_slots=3,
    domain_midpoint=-1.0,
    domain_slope=1.0,
)
BIASED = BASE.model_copy(
    update={"logit_bias": (0.5, 0.0, -0.5, 0.2), "vote_bias": (0.0, 0.1, 0.0, -0.1)}
)
ALL = [0, 1, 2, 3]


def confidence(problem, decision: Decision, columns: list[int]) -> float:
    """Mean confidence as the service computes its answer."""
    source = problem.source
    memory = Memory(
        source.pooled.numpy(), source.emotion.numpy(), ("c",) * len(source.pooled),
        ("en",) * len(source.pooled),
    )  # fmt: skip
    with torch.no_grad():
        target_features = problem.head.project_target(problem.target.pooled)
        known = problem.head.project_source(source.pooled).numpy()
        logits = problem.head.classify(target_features).numpy()
    votes = MemoryIndex(memory, known, decision, LABELS).vote(target_features.numpy())
    bias = np.array(decision.logit_bias or 0.0, np.float32)
    own = softmax(logits / np.float32(decision.temperature) + bias)
    blended = (1 - decision.vote_weight) * own + decision.vote_weight * votes
    blended = blended[:, columns]
    return float((blended.max(1) / blended.sum(1)).mean())


def refitted(problem, accuracy: float, base: Decision = BASE, columns=ALL) -> Decision:
    return fit_temperatures(base, problem.head, problem.source, problem.target, columns, accuracy)


@pytest.mark.parametrize("base", [BASE, BIASED], ids=["plain", "biased"])
@pytest.mark.parametrize("columns", [ALL, [0, 3]])
@pytest.mark.parametrize("accuracy", [0.6, 0.7])
def test_the_mean_confidence_of_the_services_answer_is_the_accuracy(
    problem, base: Decision, columns: list[int], accuracy: float
) -> None:
    found = refitted(problem, accuracy, base, columns)
    assert confidence(problem, base, columns) != pytest.approx(accuracy, abs=0.02)
    assert confidence(problem, found, columns) == pytest.approx(accuracy, abs=1e-3)
    factor = found.temperature / base.temperature
    assert found.vote_temperature / base.vote_temperature == pytest.approx(factor)
    same = {"temperature": base.temperature, "vote_temperature": base.vote_temperature}
    assert found.model_copy(update=same) == base


def test_an_emotion_without_slots_has_no_votes(problem) -> None:
    kept = problem.source.emotion != 2
    problem.source = Source(problem.source.pooled[kept], problem.source.emotion[kept])
    alone = BASE.model_copy(update={"vote_weight": 1.0})
    found = refitted(problem, 0.5, alone)
    assert confidence(problem, found, ALL) == pytest.approx(0.5, abs=1e-3)
    assert np.isfinite(refitted(problem, 0.9, alone, [2]).temperature)


@pytest.mark.parametrize(("accuracy", "factor"), [(0.0, 8.0), (1.0, 1 / 8)])
def test_the_factor_has_bounds(problem, accuracy: float, factor: float) -> None:
    found = refitted(problem, accuracy)
    assert found.temperature == pytest.approx(1.7 * factor, rel=1e-6)
    assert found.vote_temperature == pytest.approx(0.2 * factor, rel=1e-6)


def test_temperatures_stay_what_a_card_can_hold(problem) -> None:
    extreme = BASE.model_copy(update={"temperature": 900.0, "vote_temperature": 0.002})
    hot, cold = refitted(problem, 0.0, extreme), refitted(problem, 1.0, extreme)
    assert hot.temperature == 1e3
    assert cold.vote_temperature == 1e-3
    for found in (hot, cold):
        Decision.model_validate(found.model_dump())


def decided(problem, changed: float, expected: float | None, **config: object) -> Decision:
    evidence = Evidence(
        verdict="improved",
        reasons=(),
        estimated_accuracy=None if expected is None else Estimate(value=expected, error=0.1),
        figures={"answers_changed": changed},
    )
    return adapt_decision(
        BASE, problem.head, problem.source, problem.target, LABELS, evidence, AdaptConfig(**config)
    )


def test_the_decision_follows_the_estimate(problem) -> None:
    found = decided(problem, 0.2, 0.6)
    assert found == refitted(problem, 0.6)
    assert found != BASE


def test_where_no_answer_has_changed_the_bases_stays(problem) -> None:
    assert decided(problem, 0.0, 0.6) == BASE
    assert decided(problem, 0.0, 0.6, answer_vote=False) == BASE


def test_without_an_estimate_or_the_wish_for_it_temperatures_stay(problem) -> None:
    assert decided(problem, 0.2, None) == BASE
    assert decided(problem, 0.2, 0.6, calibrate=False) == BASE


def test_without_the_vote_the_classifier_answers_alone(problem) -> None:
    silent = BASE.model_copy(update={"vote_weight": 0.0})
    assert decided(problem, 0.2, 0.6, answer_vote=False, calibrate=False) == silent
    found = decided(problem, 0.2, 0.6, answer_vote=False)
    assert found == refitted(problem, 0.6, silent)
    with torch.no_grad():
        logits = problem.head.classify(problem.head.project_target(problem.target.pooled))
    sure = F.softmax(logits / found.temperature, dim=1).amax(1).mean()
    assert sure.item() == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_prior_correction_adds_the_log_ratio_of_the_priors(problem, strength: float) -> None:
    found = correct_prior(BIASED, problem.head, problem.target, 1.0, strength)
    with torch.no_grad():
        logits = problem.head.classify(problem.head.project_target(problem.target.pooled)).numpy()
    before = np.array(BIASED.logit_bias)
    answers = softmax((logits / BIASED.temperature + before).astype(np.float32))
    expected = before + strength * np.log(0.25 / answers.mean(0))
    np.testing.assert_allclose(found.logit_bias, expected, atol=1e-4)
    after = softmax((logits / BIASED.temperature + found.logit_bias).astype(np.float32)).mean(0)
    assert np.abs(after - 0.25).max() < np.abs(answers.mean(0) - 0.25).max()
