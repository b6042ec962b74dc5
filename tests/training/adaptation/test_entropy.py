import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from nnpm.training.adaptation.head import Source
from nnpm.training.adaptation.methods.entropy import Entropy, information_maximisation

EVEN = torch.full((4,), 0.25)
UNEVEN = torch.tensor([0.1, 0.2, 0.3, 0.4])


def brute_force(logits, prior) -> float:
    """The loss again, clip by clip and emotion by emotion."""
    answers = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in logits]
    entropy = sum(-p * math.log(p) for row in answers for p in row) / len(answers)
    mean = [sum(column) / len(answers) for column in zip(*answers, strict=True)]
    return entropy + sum(m * math.log(m / q) for m, q in zip(mean, prior, strict=True))


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(9, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prior", [EVEN, UNEVEN])
def test_it_is_the_brute_force_loss(logits, prior) -> None:
    expected = brute_force(logits.tolist(), prior.tolist())
    assert information_maximisation(logits, prior).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prior", [EVEN, UNEVEN])
def test_it_is_what_torchs_distributions_say(logits, prior) -> None:
    mean = Categorical(probs=logits.softmax(1).mean(0))
    expected = Categorical(logits=logits).entropy().mean() + kl_divergence(mean, Categorical(prior))
    torch.testing.assert_close(information_maximisation(logits, prior), expected)


def test_with_an_equal_prior_it_is_shots_loss_and_a_constant(logits) -> None:
    """SHOT adds up p log p of the mean answer, minus its entropy."""
    mean = logits.softmax(1).mean(0)
    shot = Categorical(logits=logits).entropy().mean() - Categorical(probs=mean).entropy()
    torch.testing.assert_close(information_maximisation(logits, EVEN), shot + math.log(4))


def test_sure_and_even_costs_nothing_unsure_or_collapsed_the_logarithm() -> None:
    sure = 100 * torch.eye(4)
    assert information_maximisation(sure, EVEN).item() == pytest.approx(0.0, abs=1e-6)
    for bad in (torch.zeros(4, 4), sure[[1, 1, 1, 1]]):
        assert information_maximisation(bad, EVEN).item() == pytest.approx(math.log(4), rel=1e-5)
    shares = sure[[0, 1, 1, 2, 2, 2, 3, 3, 3, 3]]
    assert information_maximisation(shares, UNEVEN).item() == pytest.approx(0.0, abs=1e-6)


def test_descent_makes_clips_surer_and_the_mean_more_even() -> None:
    leaning = torch.eye(4).requires_grad_()  # even already: only sureness is left to win
    information_maximisation(leaning, EVEN).backward()
    assert (leaning.grad.diagonal() < 0).all()
    assert (leaning.grad[~torch.eye(4, dtype=bool)] > 0).all()

    collapsed = torch.tensor([[2.0, 0, 0, 0]]).repeat(5, 1)
    collapsed[4] = torch.tensor([0.1, 0.0, 0.0, 0.0])
    collapsed.requires_grad_()
    information_maximisation(collapsed, EVEN).backward()
    assert collapsed.grad[4, 0] > 0  # the unsure clip is what can leave


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_answers_without_any_doubt_have_finite_gradients(size: float) -> None:
    logits = (size * torch.eye(4)[[0, 0, 1]]).requires_grad_()
    loss = information_maximisation(logits, EVEN)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4) + (2 * math.log(2 / 3) + math.log(1 / 3)) / 3)
    assert logits.grad.isfinite().all()


def test_the_method_weighs_the_loss_of_the_target(problem) -> None:
    batch = problem.batch()
    expected = 0.7 * brute_force(batch.target_logits.tolist(), EVEN.tolist())
    found = problem.method(Entropy, weight=0.7).loss(batch, 0.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_prior_is_equal_or_the_memorys_with_one_clip_more_of_each(problem) -> None:
    torch.testing.assert_close(problem.method(Entropy, prior="uniform").prior, EVEN)
    emotion = torch.tensor([0] * 5 + [1] * 2 + [2] * 1)  # none of the fourth
    problem.source = Source(torch.zeros(8, 6), emotion)
    found = problem.method(Entropy, prior="source").prior
    np.testing.assert_allclose(found, np.array([6, 3, 2, 1]) / 12, rtol=1e-6)


def test_steps_on_the_head_lower_it(problem) -> None:
    method = problem.method(Entropy, weight=1.0)
    losses = []
    for _ in range(20):
        loss = method.loss(problem.batch(), 0.5)
        losses.append(loss.item())
        problem.head.zero_grad()
        loss.backward()
        with torch.no_grad():
            weight = problem.head.head.projection.weight
            weight -= 0.1 * weight.grad
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
