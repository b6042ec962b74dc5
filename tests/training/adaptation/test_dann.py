import math

import numpy as np
import pytest
import torch
from skada.deep import DANNLoss
from skada.deep.modules import GradientReversalLayer

from nnpm.training.adaptation.methods.dann import (
    DANN,
    domain_loss,
    reversal_strength,
    reverse_gradient,
)


def brute_force(source, target) -> float:
    """Cross-entropy of probabilities, clip by clip."""
    of_source = [-math.log(1 - 1 / (1 + math.exp(-x))) for x in source]
    of_target = [-math.log(1 / (1 + math.exp(-x))) for x in target]
    return sum(of_source) / len(of_source) + sum(of_target) / len(of_target)


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, generator=generator), torch.randn(7, generator=generator) + 0.5


def test_the_gradient_is_reversed_as_skada_does(logits) -> None:
    ours, theirs = (torch.linspace(-2, 2, 6).requires_grad_() for _ in range(2))
    for reversed_ in (reverse_gradient(ours, 0.3), GradientReversalLayer.apply(theirs, 0.3)):
        torch.testing.assert_close(reversed_, theirs.detach())
        reversed_.pow(3).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(ours.grad, -0.3 * 3 * ours.detach().square())


def test_domain_loss_is_the_brute_force_one_and_skadas(logits) -> None:
    source, target = logits
    found = domain_loss(source, target)
    assert found.item() == pytest.approx(brute_force(source.tolist(), target.tolist()), rel=1e-5)
    torch.testing.assert_close(found, DANNLoss()(source.sigmoid(), target.sigmoid()))


def test_domain_loss_of_one_that_cannot_tell_and_of_one_that_is_sure() -> None:
    assert domain_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(2 * math.log(2))
    sure = torch.full((3,), 1000.0)
    assert domain_loss(-sure, sure).item() == 0.0
    assert domain_loss(sure, -sure).item() == 2000.0  # wrong, and finite


def test_the_schedule_is_the_papers() -> None:
    shares = np.linspace(0, 1, 11)
    found = [reversal_strength(float(share)) for share in shares]
    np.testing.assert_allclose(found, np.tanh(5 * shares), atol=1e-12)  # the same curve
    assert found[0] == 0.0


def gradients(problem, method: DANN, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the head's projection, and of the discriminator's first layer."""
    problem.head.zero_grad()
    method.domain_discriminator.zero_grad()
    method.loss(problem.batch(), progress).backward()
    first = method.domain_discriminator[0].weight.grad
    return problem.head.head.projection.weight.grad.clone(), first.clone()


def test_the_head_climbs_where_the_discriminator_descends(problem) -> None:
    method = problem.method(DANN, weight=0.7)
    of_head, of_discriminator = gradients(problem, method, 0.4)

    problem.head.zero_grad()
    method.domain_discriminator.zero_grad()
    batch = problem.batch()
    source, target = (
        method.domain_discriminator(math.sqrt(8) * z)[:, 0]
        for z in (batch.source_projection, batch.target_projection)
    )
    domain_loss(source, target).backward()  # no reversal: both descend
    plain = problem.head.head.projection.weight.grad
    assert plain.abs().max() > 1e-4
    torch.testing.assert_close(of_head, -0.7 * math.tanh(5 * 0.4) * plain)
    torch.testing.assert_close(of_discriminator, method.domain_discriminator[0].weight.grad)


@pytest.mark.parametrize(("weight", "progress"), [(0.0, 0.9), (1.0, 0.0)])
def test_without_weight_and_before_the_start_only_the_discriminator_learns(
    problem, weight: float, progress: float
) -> None:
    method = problem.method(DANN, weight=weight)
    of_head, of_discriminator = gradients(problem, method, progress)
    assert (of_head == 0).all()
    assert of_discriminator.abs().max() > 1e-4


def test_its_parameters_are_the_discriminators(problem) -> None:
    method = problem.method(DANN, hidden=5)
    shapes = [tuple(weight.shape) for weight in method.parameters()]
    assert shapes == [(5, 8), (5,), (1, 5), (1,)]


def test_the_game_brings_the_domains_together(problem) -> None:
    def gap(weight: float) -> float:
        """Between the means of the two sides after the game, in deviations of the source."""
        torch.manual_seed(0)
        head = torch.nn.Linear(2, 2)
        generator = torch.Generator().manual_seed(0)
        source = torch.randn(40, 2, generator=generator)
        target = torch.randn(40, 2, generator=generator) + torch.tensor([3.0, 0.0])
        discriminator = torch.nn.Linear(2, 1)
        optimizer = torch.optim.Adam([*head.parameters(), *discriminator.parameters()], lr=0.05)
        for _ in range(200):
            sides = (reverse_gradient(head(side), weight) for side in (source, target))
            loss = domain_loss(*(discriminator(side)[:, 0] for side in sides))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return float((head(target) - head(source)).mean(0).norm() / head(source).std())

    assert gap(0.0) > 1.0
    assert gap(1.0) < 0.5 * gap(0.0)
