import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skada.deep.losses import dan_loss

from nnpm.training.adaptation.config import MMDConfig
from nnpm.training.adaptation.methods.mmd import MMD, maximum_mean_discrepancy

BANK = (0.25, 1.0, 4.0)


def brute_force(source: np.ndarray, target: np.ndarray, bandwidths) -> float:
    """The discrepancy again, pair by pair."""

    def apart(a, b) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    everyone = [*source, *target]
    pairs = sorted(apart(a, b) for i, a in enumerate(everyone) for b in everyone[i + 1 :])
    median = pairs[(len(pairs) - 1) // 2]

    def alike(one, other) -> float:
        kernels = [
            math.exp(-apart(a, b) / (w * median)) for a in one for b in other for w in bandwidths
        ]
        return sum(kernels) / len(kernels)

    return alike(source, source) + alike(target, target) - 2 * alike(source, target)


@pytest.fixture
def sides() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(12, 5, generator=generator)
    return source, torch.randn(7, 5, generator=generator) + 0.7


def test_it_is_the_brute_force_discrepancy(sides) -> None:
    source, target = sides
    expected = brute_force(source.double().numpy(), target.double().numpy(), BANK)
    assert maximum_mean_discrepancy(source, target, BANK).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_it_is_skadas(sides) -> None:
    """Their kernel takes distances that are not squared.

    The roots of Euclidean distances are Euclidean distances too (Schoenberg 1938), so there are
    points whose squared distances are the distances of ours: classical scaling finds them.
    """
    source, target = sides
    points = torch.cat(sides).double()
    distances = torch.cdist(points, points)
    n = len(points)
    centre = torch.eye(n, dtype=torch.double) - 1.0 / n
    values, vectors = torch.linalg.eigh(-0.5 * centre @ distances @ centre)
    assert values.min() > -1e-9
    rooted = (vectors * values.clamp(min=0.0).sqrt()).float()

    upper = distances[tuple(torch.triu_indices(n, n, offset=1))]
    sigmas = [width * upper.median().item() for width in BANK]
    theirs = dan_loss(source, target, sigmas=sigmas) / len(BANK)  # they add the kernels up
    ours = maximum_mean_discrepancy(rooted[: len(source)], rooted[len(source) :], BANK)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_it_is_0_for_the_same_set_in_another_order_and_never_negative(sides) -> None:
    source, target = sides
    assert maximum_mean_discrepancy(source, source.flip(0), BANK).item() == pytest.approx(
        0, abs=1e-6
    )
    assert maximum_mean_discrepancy(source, target, BANK).item() > 0.01
    for first in range(1, 12):  # halves of one set
        parts = source[:first], source[first:]
        assert maximum_mean_discrepancy(*parts, BANK).item() >= 0.0


def test_the_median_makes_it_free_of_scale(sides) -> None:
    source, target = sides
    near = maximum_mean_discrepancy(source, target, BANK)
    torch.testing.assert_close(maximum_mean_discrepancy(9 * source, 9 * target, BANK), near)


def test_no_gradient_goes_through_the_median(sides) -> None:
    """If it did, then the loss, free of scale, would have none along the scale."""
    points = torch.cat(sides).requires_grad_()
    maximum_mean_discrepancy(points[:12], points[12:], BANK).backward()
    assert abs((points.grad * points.detach()).sum().item()) > 1e-3


def test_two_points_a_side_far_apart() -> None:
    # of six pairs four have the one distance, which is therefore the median
    source, target = torch.zeros(2, 3), torch.ones(2, 3)
    found = maximum_mean_discrepancy(source, target, [0.5]).item()
    assert found == pytest.approx(2 - 2 * math.exp(-1 / 0.5), rel=1e-6)


def test_a_set_of_one_point_costs_nothing_and_is_finite() -> None:
    source = torch.ones(3, 2, requires_grad=True)
    loss = maximum_mean_discrepancy(source, torch.ones(4, 2), BANK)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert source.grad.isfinite().all()


def test_descent_moves_the_sides_towards_each_other(sides) -> None:
    source, target = (side.requires_grad_() for side in sides)
    maximum_mean_discrepancy(source, target, BANK).backward()
    gap = (source - target.mean(0)).mean(0).detach()  # from target to source
    assert (-source.grad).mean(0) @ gap < 0
    assert (-target.grad).mean(0) @ gap > 0


def test_the_method_weighs_the_discrepancy_of_the_projections(problem) -> None:
    batch = problem.batch()
    sides = (batch.source_projection, batch.target_projection)
    expected = 3.0 * brute_force(*(side.detach().double().numpy() for side in sides), BANK)
    method = problem.method(MMD, weight=3.0, bandwidths=BANK)
    assert method.loss(batch, 0.5).item() == pytest.approx(expected, 1e-4)


def test_steps_on_the_head_lower_it(problem) -> None:
    method = problem.method(MMD, weight=1.0)
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


@pytest.mark.parametrize("bandwidths", [(), (1.0, 0.0), (-1.0,), (math.inf,)])
def test_a_bank_without_kernels_or_without_width_is_refused(bandwidths) -> None:
    with pytest.raises(ValidationError, match="bandwidths"):
        MMDConfig(bandwidths=bandwidths)
