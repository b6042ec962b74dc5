import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skada.deep.losses import dan_loss

from nnpm.training.adaptation.config import MMDConfig
from nnpm.training.adaptation.methods.mmd import MMD, maximum_mean_discrepancy
from tests.support.gradients import assert_gradients_agree

BANK = (0.25, 1.0, 4.0)


def brute_force(source: np.ndarray, target: np.ndarray, bandwidths) -> float:
    """The discrepancy again, pair by pair."""

    def apart(a, b) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    everyone = [*source, *target]
    median = np.median([apart(a, b) for i, a in enumerate(everyone) for b in everyone[i + 1 :]])

    def alike(one, other) -> float:
        kernels = [
            math.exp(-apart(a, b) / (w * median)) for a in one for b in other for w in bandwidths
        ]
        return sum(kernels) / len(kernels)

    return alike(source, source) + alike(target, target) - 2 * alike(source, target)


def in_torch(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    points = torch.cat([source, target])
    distances = (points[:, None] - points[None]).square().sum(2)
    upper = torch.triu_indices(len(points), len(points), offset=1)
    median = distances.detach()[upper[0], upper[1]].quantile(0.5)
    kernel = torch.stack([(-distances / (w * median)).exp() for w in BANK]).mean(0)
    n = len(source)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


@pytest.fixture
def sides() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((12, 5)), rng.standard_normal((7, 5)) + 0.7


def test_it_is_the_brute_force_discrepancy(sides) -> None:
    assert maximum_mean_discrepancy(*sides, BANK) == pytest.approx(brute_force(*sides, BANK))


def test_its_gradients_are_torchs_and_none_goes_through_the_median(sides) -> None:
    assert_gradients_agree(lambda a, b: maximum_mean_discrepancy(a, b, BANK), in_torch, *sides)


def test_it_is_skadas(sides) -> None:
    """Their kernel takes distances that are not squared.

    The roots of Euclidean distances are Euclidean distances too (Schoenberg 1938), so there are
    points whose squared distances are the distances of ours: classical scaling finds them.
    """
    source, target = map(torch.from_numpy, sides)
    points = torch.cat([source, target])
    distances = torch.cdist(points, points)
    n = len(points)
    centre = torch.eye(n, dtype=torch.double) - 1.0 / n
    values, vectors = torch.linalg.eigh(-0.5 * centre @ distances @ centre)
    rooted = (vectors * values.clamp(min=0.0).sqrt()).numpy()
    upper = distances[tuple(torch.triu_indices(n, n, offset=1))]
    sigmas = [width * upper.quantile(0.5).item() for width in BANK]
    sides32 = source.float(), target.float()
    theirs = dan_loss(*sides32, sigmas=sigmas) / len(BANK)  # they add the kernels up
    ours = maximum_mean_discrepancy(rooted[:12], rooted[12:], BANK)
    assert ours == pytest.approx(theirs.item(), rel=1e-4)


def test_it_is_0_for_the_same_set_in_another_order_and_never_negative(sides) -> None:
    source, _ = sides
    assert maximum_mean_discrepancy(source, source[::-1], BANK) == pytest.approx(0, abs=1e-6)
    for first in range(1, 12):  # halves of one set
        assert maximum_mean_discrepancy(source[:first], source[first:], BANK) >= 0.0


def test_the_median_makes_it_free_of_scale(sides) -> None:
    source, target = sides
    near = maximum_mean_discrepancy(source, target, BANK)
    assert maximum_mean_discrepancy(9 * source, 9 * target, BANK) == pytest.approx(near)


def test_a_set_of_one_point_costs_nothing() -> None:
    found = maximum_mean_discrepancy(np.ones((3, 2)), np.ones((4, 2)), BANK)
    assert found == pytest.approx(0.0, abs=1e-6)


def test_the_method_weighs_the_discrepancy_of_the_projections_and_steps_lower_it(problem) -> None:
    batch = problem.batch()
    sides = (batch.source_projection, batch.target_projection)
    method = problem.method(MMD, weight=3.0, bandwidths=BANK)
    assert problem.loss(method) == pytest.approx(3.0 * brute_force(*sides, BANK), rel=1e-3)
    losses = problem.descend(problem.method(MMD, weight=1.0))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("bandwidths", [(), (1.0, 0.0), (-1.0,), (math.inf,)])
def test_a_bank_without_kernels_or_without_width_is_refused(bandwidths) -> None:
    with pytest.raises(ValidationError, match="bandwidths"):
        MMDConfig(bandwidths=bandwidths)
