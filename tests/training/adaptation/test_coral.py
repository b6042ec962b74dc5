import numpy as np
import pytest
import torch
from skada.deep.losses import deepcoral_loss

from nnpm.training.adaptation.methods.coral import Coral, coral_loss
from nnpm.training.errors import TrainingError


def brute_force(source: np.ndarray, target: np.ndarray) -> float:
    """The distance again, entry by entry and clip by clip."""
    total = 0.0
    for i in range(source.shape[1]):
        for j in range(source.shape[1]):
            entries = []
            for side in (source, target):
                mean_i, mean_j = sum(side[:, i]) / len(side), sum(side[:, j]) / len(side)
                products = [(row[i] - mean_i) * (row[j] - mean_j) for row in side]
                entries.append(sum(products) / (len(side) - 1))
            total += (entries[0] - entries[1]) ** 2
    return total


@pytest.fixture
def sides() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(12, 5, generator=generator)
    return source, torch.randn(7, 5, generator=generator) * 2.0 + 1.0


def test_it_is_the_brute_force_distance(sides) -> None:
    source, target = sides
    expected = brute_force(source.double().numpy(), target.double().numpy())
    assert coral_loss(source, target).item() == pytest.approx(expected, rel=1e-5)


def test_it_is_skadas_but_for_the_width(sides) -> None:
    source, target = sides
    theirs = 4 * source.shape[1] ** 2 * deepcoral_loss(source, target)
    torch.testing.assert_close(coral_loss(source, target), theirs)


def test_it_is_0_for_the_same_set_in_another_order_and_place(sides) -> None:
    source, _ = sides
    assert coral_loss(source, source).item() == 0.0
    assert coral_loss(source, source.flip(0) + 3.0).item() == pytest.approx(0.0, abs=1e-9)


def test_twice_as_wide_is_four_times_the_covariance(sides) -> None:
    source, _ = sides
    expected = 9.0 * np.square(np.cov(source.numpy(), rowvar=False)).sum()
    assert coral_loss(source, 2.0 * source).item() == pytest.approx(expected, rel=1e-5)


def test_a_target_that_is_too_wide_is_drawn_together_and_the_source_apart(sides) -> None:
    source = sides[0].requires_grad_()
    target = (2.0 * sides[0]).detach().requires_grad_()
    coral_loss(source, target).backward()
    outward = [side.detach() - side.detach().mean(0) for side in (source, target)]
    assert (source.grad * outward[0]).sum() < 0  # descending moves it outward
    assert (target.grad * outward[1]).sum() > 0


def test_a_covariance_needs_two_clips(sides) -> None:
    source, target = sides
    with pytest.raises(TrainingError, match="it has 12 and 1"):
        coral_loss(source, target[:1])
    with pytest.raises(TrainingError, match="it has 1 and 7"):
        coral_loss(source[:1], target)


def test_the_method_weighs_the_distance_of_the_projections(problem) -> None:
    batch = problem.batch()
    sides = (batch.source_projection, batch.target_projection)
    expected = 3.0 * brute_force(*(side.detach().double().numpy() for side in sides))
    assert problem.method(Coral, weight=3.0).loss(batch, 0.5).item() == pytest.approx(
        expected, 1e-4
    )


def test_steps_on_the_head_lower_it(problem) -> None:
    method = problem.method(Coral, weight=1.0)
    losses = []
    for _ in range(20):
        loss = method.loss(problem.batch(), 0.5)
        losses.append(loss.item())
        problem.head.zero_grad()
        loss.backward()
        with torch.no_grad():
            weight = problem.head.head.projection.weight
            weight -= 0.5 * weight.grad
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
