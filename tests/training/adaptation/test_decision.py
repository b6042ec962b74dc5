from dataclasses import replace

import numpy as np
import pytest

from nnpm.service.inference.bundle import Memory
from nnpm.service.inference.card import Decision
from nnpm.training.adaptation.config import StatisticsConfig
from nnpm.training.adaptation.decision import (
    Served,
    adapt_decision,
    fit_labels,
    fit_temperatures,
    keep_answering,
    serve,
)
from nnpm.training.adaptation.methods.adabn import with_statistics
from nnpm.training.adaptation.methods.method import log_softmax
from nnpm.training.bundle.prototypes import Prototypes, answer

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


@pytest.fixture
def prototypes(problem) -> Prototypes:
    source = problem.source
    names = tuple(str(speaker) for speaker in source.speaker)
    memory = Memory(source.features, source.emotion, ("c",) * 30, ("en",) * 30, names)
    return Prototypes.of(problem.head, memory)


def served(problem, prototypes, decision: Decision = BASE) -> Served:
    target = problem.target
    return serve(target.pooled, problem.head, prototypes, decision, target.occurs)


def test_answers_are_the_graphs_among_the_default_emotions(problem, prototypes) -> None:
    found = answer(problem.target.pooled, problem.head, prototypes, BASE)
    whole = served(problem, prototypes)
    np.testing.assert_allclose(whole.probabilities, found.probabilities, rtol=1e-5)
    sure = found.probabilities.max(1) >= 0.4
    assert whole.answered.tolist() == (sure & (found.out_of_domain <= 0.9)).tolist()
    problem.target = replace(problem.target, occurs=(0, 2))
    some = served(problem, prototypes)
    assert (some.probabilities[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(some.probabilities.sum(1), 1, rtol=1e-5)
    ratio = found.probabilities[:, 0] / found.probabilities[:, 2]
    np.testing.assert_allclose(
        some.probabilities[:, 0] / some.probabilities[:, 2], ratio, rtol=1e-4
    )


def test_emotions_are_shares_of_the_clips(problem, prototypes) -> None:
    found = served(problem, prototypes)
    shares = found.emotions(LABELS)
    assert sum(shares.values()) == pytest.approx(1.0)
    for name, share in shares.items():
        assert share == np.mean(found.answers == LABELS.index(name)) > 0


@pytest.mark.parametrize("occurs", [(), (0, 3)])
@pytest.mark.parametrize("accuracy", [0.6, 0.7])
def test_the_mean_confidence_is_the_accuracy(problem, prototypes, occurs, accuracy: float) -> None:
    problem.target = replace(problem.target, occurs=occurs)
    found = fit_temperatures(BASE, problem.head, prototypes, problem.target, accuracy)
    assert served(problem, prototypes).confidence.mean() != pytest.approx(accuracy, abs=0.01)
    assert served(problem, prototypes, found).confidence.mean() == pytest.approx(accuracy, abs=1e-3)
    factor = found.temperature / BASE.temperature
    assert found.vote_temperature / BASE.vote_temperature == pytest.approx(factor)


@pytest.mark.parametrize(("accuracy", "factor"), [(0.0, 8.0), (1.0, 1 / 8)])
def test_the_factor_has_bounds(problem, prototypes, accuracy: float, factor: float) -> None:
    found = fit_temperatures(BASE, problem.head, prototypes, problem.target, accuracy)
    assert found.temperature == pytest.approx(1.7 * factor, rel=1e-6)
    assert found.vote_temperature == pytest.approx(0.2 * factor, rel=1e-6)
    Decision.model_validate(found.model_dump())


@pytest.mark.parametrize("accuracy", [None, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("low_confidence", [0.0, 0.4, 0.7, 1.0])
def test_as_many_clips_are_answered_as_the_base_answers(
    problem, prototypes, accuracy, low_confidence: float
) -> None:
    base = BASE.model_copy(update={"low_confidence": low_confidence})
    before = served(problem, prototypes, base)
    moved = with_statistics(problem.head, problem.target, StatisticsConfig(mean_clips=0))
    found = adapt_decision(base, before, moved, prototypes, problem.target, accuracy=accuracy)
    after = serve(problem.target.pooled, moved, prototypes, found)
    assert after.answered.sum() == before.answered.sum()
    Decision.model_validate(found.model_dump())
    if accuracy is None:
        assert found.temperature == base.temperature


def test_clips_that_were_in_the_domain_stay_in_it(problem, prototypes) -> None:
    before = served(problem, prototypes, BASE.model_copy(update={"low_confidence": 0.0}))
    assert before.answered.all()
    strict = BASE.model_copy(update={"out_of_domain": 0.01})
    found = keep_answering(strict, before, problem.head, prototypes, problem.target)
    assert served(problem, prototypes, found).answered.all()


def labelled(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident logits that lean to emotion 0, and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 4
    logits = 2.0 * np.eye(4)[truth] + rng.standard_normal((count, 4)) + [1.0, 0, 0, 0]
    return (5 * logits).astype(np.float32), truth


def loss(decision: Decision, logits: np.ndarray, truth: np.ndarray) -> float:
    bias = np.array(decision.logit_bias or np.zeros(4))
    answers = log_softmax(logits.astype(np.float64) / decision.temperature + bias)
    return float(-answers[np.arange(len(truth)), truth].mean())


@pytest.mark.parametrize(
    ("count", "with_bias"), [(20, False), (39, False), (40, True), (100, True)]
)
def test_labels_fit_the_temperature_and_from_40_on_a_bias(problem, count, with_bias) -> None:
    logits, truth = labelled(count)
    target = replace(problem.target, labelled=np.zeros(count, np.int64), emotion=truth)
    found = fit_labels(BASE, logits, target)
    assert found.temperature > BASE.temperature
    assert found.vote_weight == 0.0
    assert bool(found.logit_bias) is with_bias
    if with_bias:
        assert found.logit_bias[0] == min(found.logit_bias) < 0
    others, theirs = labelled(2000, seed=1)
    assert loss(found, others, theirs) < loss(BASE, others, theirs)
    Decision.model_validate(found.model_dump())


def test_labels_are_used_from_20_on_and_keep_the_answered_share(problem, prototypes) -> None:
    before = served(problem, prototypes)
    for count in (19, 20):
        logits, truth = labelled(count)
        target = replace(problem.target, labelled=np.arange(count), emotion=truth)
        found = adapt_decision(BASE, before, problem.head, prototypes, target, cross_fitted=logits)
        assert (found.vote_weight == 0.0) is (count == 20)
        problem.target = target
        assert served(problem, prototypes, found).answered.sum() == before.answered.sum()
