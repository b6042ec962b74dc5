import numpy as np
import pytest
import torch

from nnpm.training.adaptation.head import AdaptedHead, Target


@pytest.fixture
def adapted(problem) -> AdaptedHead:
    """Another head than the base's, with statistics of its own for the target."""
    adapted = AdaptedHead(problem.head.export(), problem.target, target_statistics=True).eval()
    with torch.no_grad():
        adapted.head.projection.weight += 0.3
        adapted.head.classes += 0.1
    return adapted


def by_hand(adapted: AdaptedHead, pooled: torch.Tensor, mean: np.ndarray, variance: np.ndarray):
    """z in numpy."""
    norm = adapted.head.norm
    standard = (pooled.numpy() - mean) / np.sqrt(variance + norm.eps)
    standard = standard * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    projection = adapted.head.projection
    z = standard @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@torch.no_grad()
def test_each_side_has_statistics_of_its_own(adapted, problem) -> None:
    source, target = problem.source.pooled, problem.target.pooled
    mean, variance = target.numpy().mean(0), target.numpy().var(0)
    found = adapted.project_target(target).numpy()
    np.testing.assert_allclose(found, by_hand(adapted, target, mean, variance), atol=1e-5)
    expected = by_hand(adapted, source, np.zeros(6), np.ones(6))  # those of a head never trained
    np.testing.assert_allclose(adapted.project_source(source).numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_the_exported_head_is_the_targets(adapted, problem) -> None:
    head = adapted.export()
    logits, projection = head(problem.target.pooled)
    torch.testing.assert_close(projection, adapted.project_target(problem.target.pooled))
    torch.testing.assert_close(logits, adapted.classify(projection))


@torch.no_grad()
def test_the_exported_head_reads_the_aligned_source_as_the_source(adapted, problem) -> None:
    aligned = adapted.align(problem.source.pooled)
    torch.testing.assert_close(
        adapted.export().project(aligned), adapted.project_source(problem.source.pooled)
    )
    assert not torch.allclose(aligned, problem.source.pooled, atol=0.1)


@torch.no_grad()
def test_adapted_to_itself_twice_the_source_stays_where_it_was(adapted, problem) -> None:
    """The second adaptation starts from the first one's statistics and memory."""
    again = AdaptedHead(adapted.export(), problem.target, target_statistics=True).eval()
    aligned = adapted.align(problem.source.pooled)
    torch.testing.assert_close(again.align(aligned), aligned)
    torch.testing.assert_close(
        again.project_source(aligned), adapted.project_source(problem.source.pooled)
    )


def test_a_feature_that_hardly_varies_is_not_blown_up(problem) -> None:
    pooled = problem.target.pooled.clone()
    pooled[:, 2] = 5.0
    adapted = AdaptedHead(
        problem.head.export(), Target(pooled, torch.zeros(0, 20, 6)), target_statistics=True
    )
    assert adapted.target_variance[2].item() == pytest.approx(0.01)  # of the source's 1
    assert adapted.align(problem.source.pooled).isfinite().all()


def test_without_target_statistics_both_sides_are_the_source(problem) -> None:
    pooled = problem.target.pooled
    assert torch.equal(problem.head.project_target(pooled), problem.head.project_source(pooled))
    assert torch.equal(problem.head.align(pooled), pooled)


def test_only_projection_and_classes_are_trained_and_the_base_is_left_alone(problem) -> None:
    base = problem.head.export()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    adapted = AdaptedHead(base, problem.target, target_statistics=True)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained == {"head.projection.weight", "head.projection.bias", "head.classes"}
    with torch.no_grad():
        for weight in adapted.parameters():
            weight += 1.0
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
