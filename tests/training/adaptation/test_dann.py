import math

import numpy as np
import pytest
import torch
from skada.deep import DANNLoss
from torch.nn.functional import softplus

from nnpm.training.adaptation.methods.dann import DANN, domain_loss, reversal_strength
from tests.support.gradients import assert_gradients_agree

DISCRIMINATOR = ("domain_weight", "domain_bias", "domain_last", "domain_last_bias")


def brute_force(source, target) -> float:
    """Cross-entropy of probabilities, clip by clip."""
    of_source = [-math.log(1 - 1 / (1 + math.exp(-x))) for x in source]
    of_target = [-math.log(1 / (1 + math.exp(-x))) for x in target]
    return sum(of_source) / len(of_source) + sum(of_target) / len(of_target)


@pytest.fixture
def logits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal(12), rng.standard_normal(7) + 0.5


def test_domain_loss_is_the_brute_force_one_skadas_and_its_gradients_are_torchs(logits) -> None:
    assert domain_loss(*logits) == pytest.approx(brute_force(*logits))
    assert_gradients_agree(
        domain_loss,
        lambda a, b: softplus(a).mean() + softplus(-b).mean(),
        *logits,
    )
    probabilities = [torch.from_numpy(side).float().sigmoid() for side in logits]
    assert domain_loss(*logits) == pytest.approx(DANNLoss()(*probabilities).item(), rel=1e-5)


def test_domain_loss_of_one_that_cannot_tell_and_of_one_that_is_sure() -> None:
    assert domain_loss(np.zeros(3), np.zeros(5)) == pytest.approx(2 * math.log(2))
    sure = np.full(3, 1000.0)
    assert domain_loss(-sure, sure) == 0.0
    assert domain_loss(sure, -sure) == 2000.0  # wrong, and finite


def test_the_schedule_is_the_papers() -> None:
    shares = np.linspace(0, 1, 11)
    found = [reversal_strength(float(share)) for share in shares]
    np.testing.assert_allclose(found, np.tanh(5 * shares), atol=1e-12)  # the same curve


def in_torch(problem, method: DANN) -> dict[str, np.ndarray]:
    """Gradients of the discriminator's loss without reversal: all descend."""
    w = {n: torch.from_numpy(v.copy()).requires_grad_() for n, v in problem.weights(method).items()}

    def is_target(x: np.ndarray) -> torch.Tensor:
        z = torch.from_numpy(x) @ w["weight"].T + w["bias"]
        z = torch.nn.functional.normalize(z, dim=1)
        hidden = (math.sqrt(8) * z @ w["domain_weight"] + w["domain_bias"]).relu()
        return hidden @ w["domain_last"] + w["domain_last_bias"]

    source = is_target(problem.source.features)
    target = is_target(problem.head.standardise(problem.target.pooled))
    (torch.nn.functional.softplus(source).mean()
     + torch.nn.functional.softplus(-target).mean()).backward()  # fmt: skip
    return {name: tensor.grad.numpy() for name, tensor in w.items() if tensor.grad is not None}


def test_the_head_climbs_where_the_discriminator_descends(problem) -> None:
    method = problem.method(DANN, weight=0.7)
    _, slope = problem.slope(method)  # at half of the steps
    plain = in_torch(problem, method)
    assert np.abs(plain["weight"]).max() > 1e-4
    reversed_ = -0.7 * math.tanh(5 * 0.5)
    for name in ("weight", "bias"):
        np.testing.assert_allclose(slope[name], reversed_ * plain[name], rtol=1e-3, atol=1e-6)
    for name in DISCRIMINATOR:
        np.testing.assert_allclose(slope[name], plain[name], rtol=1e-3, atol=1e-6)


def test_without_weight_only_the_discriminator_learns(problem) -> None:
    _, slope = problem.slope(problem.method(DANN, weight=0.0))
    assert np.abs(slope["weight"]).max() < 1e-7
    assert np.abs(slope["domain_weight"]).max() > 1e-4


def test_its_parameters_are_the_discriminators(problem) -> None:
    method = problem.method(DANN, hidden=5)
    assert {n: w.shape for n, w in method.parameters().items()} == dict(
        zip(DISCRIMINATOR, [(8, 5), (5,), (5,), (1,)], strict=True)
    )
