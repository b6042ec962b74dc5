import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from nnpm.training.adaptation.head import Source
from nnpm.training.adaptation.methods.entropy import Entropy, information_maximisation
from tests.support.gradients import assert_gradients_agree

EVEN = np.full(4, 0.25)
UNEVEN = np.array([0.1, 0.2, 0.3, 0.4])


def brute_force(logits, prior) -> float:
    """The loss again, clip by clip and emotion by emotion."""
    answers = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in logits]
    entropy = sum(-p * math.log(p) for row in answers for p in row) / len(answers)
    mean = [sum(column) / len(answers) for column in zip(*answers, strict=True)]
    return entropy + sum(m * math.log(m / q) for m, q in zip(mean, prior, strict=True))


@pytest.fixture
def logits() -> np.ndarray:
    return 3 * np.random.default_rng(1).standard_normal((9, 4))


@pytest.mark.parametrize("prior", [EVEN, UNEVEN])
def test_it_is_the_brute_force_loss(logits, prior) -> None:
    expected = brute_force(logits.tolist(), prior.tolist())
    assert information_maximisation(logits, prior) == pytest.approx(expected)


@pytest.mark.parametrize("prior", [EVEN, UNEVEN])
def test_value_and_gradients_are_those_of_torchs_distributions(logits, prior) -> None:
    def theirs(logits: torch.Tensor) -> torch.Tensor:
        mean = Categorical(probs=logits.softmax(1).mean(0))
        wanted = Categorical(torch.from_numpy(prior))
        return Categorical(logits=logits).entropy().mean() + kl_divergence(mean, wanted)

    assert_gradients_agree(lambda x: information_maximisation(x, prior), theirs, logits)


def test_sure_and_even_costs_nothing_unsure_or_collapsed_the_logarithm() -> None:
    sure = 100 * np.eye(4)
    assert information_maximisation(sure, EVEN) == pytest.approx(0.0, abs=1e-6)
    for bad in (np.zeros((4, 4)), sure[[1, 1, 1, 1]]):
        assert information_maximisation(bad, EVEN) == pytest.approx(math.log(4))
    shares = sure[[0, 1, 1, 2, 2, 2, 3, 3, 3, 3]]
    assert information_maximisation(shares, UNEVEN) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_answers_without_any_doubt_have_finite_gradients(size: float) -> None:
    from autograd import value_and_grad

    logits = size * np.eye(4)[[0, 0, 1]]
    loss, slope = value_and_grad(lambda x: information_maximisation(x, EVEN))(logits)
    assert loss == pytest.approx(math.log(4) + (2 * math.log(2 / 3) + math.log(1 / 3)) / 3)
    assert np.isfinite(slope).all()


def test_a_closed_emotion_costs_much_and_nothing_is_infinite() -> None:
    found = information_maximisation(np.zeros((3, 2)), np.array([1.0, 0.0]))
    assert 5 < found < 10


def test_the_method_weighs_the_loss_of_the_target_and_steps_lower_it(problem) -> None:
    expected = 0.7 * brute_force(problem.batch().target_logits.tolist(), EVEN.tolist())
    assert problem.loss(problem.method(Entropy, weight=0.7)) == pytest.approx(expected, rel=1e-4)
    losses = problem.descend(problem.method(Entropy, weight=1.0), rate=0.02)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_the_prior_is_equal_the_memorys_with_one_clip_more_of_each_or_estimated(problem) -> None:
    np.testing.assert_allclose(problem.method(Entropy, prior="uniform").prior, EVEN)
    emotion = np.array([0] * 5 + [1] * 2 + [2] * 1)  # none of the fourth
    problem.source = Source(np.zeros((8, 6), np.float32), emotion, np.zeros(8, np.int64))
    found = problem.method(Entropy, prior="source").prior
    np.testing.assert_allclose(found, np.array([6, 3, 2, 1]) / 12, rtol=1e-6)
    method = problem.method(Entropy, prior="estimated")
    method.refresh(problem.head)
    assert method.prior.sum() == pytest.approx(1.0, rel=1e-5)
    assert not np.allclose(method.prior, EVEN)
