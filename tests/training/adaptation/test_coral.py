import numpy as np
import pytest
import torch
from skada.deep.losses import deepcoral_loss

from nnpm.training.adaptation.methods.coral import Coral, coral_loss
from nnpm.training.errors import TrainingError
from tests.support.gradients import assert_gradients_agree


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
def sides() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((12, 5)), 2.0 * rng.standard_normal((7, 5)) + 1.0


def test_it_is_the_brute_force_distance_and_skadas_but_for_the_width(sides) -> None:
    found = coral_loss(*sides)
    assert found == pytest.approx(brute_force(*sides))
    theirs = 4 * 5**2 * deepcoral_loss(*map(torch.from_numpy, sides))
    assert found == pytest.approx(theirs.item())


def test_its_gradients_are_torchs(sides) -> None:
    assert_gradients_agree(
        coral_loss, lambda a, b: (torch.cov(a.T) - torch.cov(b.T)).square().sum(), *sides
    )


def test_it_is_0_for_the_same_set_in_another_order_and_place(sides) -> None:
    source, _ = sides
    assert coral_loss(source, source) == 0.0
    assert coral_loss(source, source[::-1] + 3.0) == pytest.approx(0.0, abs=1e-9)


def test_a_covariance_needs_two_clips(sides) -> None:
    source, target = sides
    with pytest.raises(TrainingError, match="it has 12 and 1"):
        coral_loss(source, target[:1])
    with pytest.raises(TrainingError, match="it has 1 and 7"):
        coral_loss(source[:1], target)


def test_the_method_weighs_the_distance_of_the_projections_and_steps_lower_it(problem) -> None:
    batch = problem.batch()
    expected = 3.0 * brute_force(batch.source_projection, batch.target_projection)
    assert problem.loss(problem.method(Coral, weight=3.0)) == pytest.approx(expected, rel=1e-4)
    losses = problem.descend(problem.method(Coral, weight=1.0))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
