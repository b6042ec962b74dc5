import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.training.adaptation import evidence as estimator
from nnpm.training.adaptation.evidence import agreement, core_columns, estimate
from nnpm.training.adaptation.head import AdaptedHead, Target
from nnpm.training.config import HeadConfig
from nnpm.training.network.head import Head


@pytest.fixture
def two_blocks() -> tuple[AdaptedHead, Target]:
    """Parts of 5 and 3 numbers, 30 clips, six emotions, two views that are far from the clip."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = Head(HeadConfig(projection=4), blocks=(5, 3), num_emotions=6).eval()
        pooled = torch.randn(30, 8)
        target = Target(pooled, pooled + 0.7 * torch.randn(2, 30, 8))
    return AdaptedHead(head, target, target_statistics=1.0).eval(), target


def test_core_columns_are_the_four_or_all() -> None:
    labels = ("angry", "calm", "fear", "happy", "neutral", "sad")
    assert core_columns(labels) == [0, 3, 4, 5]
    assert core_columns(("sad", "neutral", "happy", "angry")) == [3, 2, 1, 0]
    assert core_columns(("angry", "calm", "happy", "neutral")) == [0, 1, 2, 3]


def by_loops(head: AdaptedHead, target: Target, columns: list[int]) -> dict[str, float]:
    """The figures again from numbers alone: each part by itself, clip by clip."""
    inner = head.head
    mean, variance = head.target_mean.numpy(), head.target_variance.numpy()
    weight = inner.projection.weight.detach().numpy()
    bias, classes = inner.projection.bias.detach().numpy(), inner.classes.detach().numpy()
    classes = classes / np.linalg.norm(classes, axis=1, keepdims=True)

    def opinions(pooled) -> tuple[int, int, int]:
        x = np.clip((pooled - mean) / np.sqrt(variance + inner.norm.eps), -4, 4)
        first = weight[:, :5] @ x[:5] + bias[:4]
        second = weight[:, 5:] @ x[5:] + bias[4:]
        first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
        scores = [classes[:, :4] @ first, classes[:, 4:] @ second]
        return tuple(int(np.argmax(s[columns])) for s in (*scores, scores[0] + scores[1]))

    recorded = [opinions(clip) for clip in target.pooled.numpy()]
    answers = [whole for _, _, whole in recorded]
    views = [[opinions(clip)[2] for clip in view] for view in target.views.numpy()]
    return {
        "largest_share": max(answers.count(e) for e in answers) / len(answers),
        "block_agreement": float(np.mean([first == second for first, second, _ in recorded])),
        "view_agreement": float(np.mean([np.array(view) == answers for view in views])),
    }


@pytest.mark.parametrize("columns", [[0, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
def test_agreement_is_the_brute_force_one(two_blocks, columns: list[int]) -> None:
    head, target = two_blocks
    expected = by_loops(head, target, columns)
    assert all(0.1 < value < 1 for value in expected.values())
    assert agreement(head, target, columns) == pytest.approx(expected)


def test_parts_that_say_the_same_and_views_that_are_the_clip_agree(two_blocks) -> None:
    head, target = two_blocks
    same = agreement(head, Target(target.pooled, target.pooled[None]), [0, 1, 2, 3, 4, 5])
    assert same["view_agreement"] == 1.0
    with torch.no_grad():  # both parts now answer the first emotion, whatever the clip
        head.head.projection.weight.zero_()
        head.head.projection.bias.copy_(F.normalize(head.head.classes[0], dim=0))
    found = agreement(head, target, [0, 1, 2, 3, 4, 5])
    assert found == {"largest_share": 1.0, "block_agreement": 1.0, "view_agreement": 1.0}


def test_what_is_not_there_is_left_out(two_blocks, problem) -> None:
    head, target = two_blocks
    silent = Target(target.pooled, target.views[:0])
    assert set(agreement(head, silent, [0, 1])) == {"largest_share", "block_agreement"}
    of_one_block = agreement(problem.head, problem.target, [0, 1, 2, 3])
    assert set(of_one_block) == {"largest_share", "view_agreement"}


def test_the_estimate_is_the_line() -> None:
    figures = {"block_agreement": 0.6, "view_agreement": 0.8, "largest_share": 0.4}
    found = estimate(figures)
    assert found is not None
    names = ("_INTERCEPT", "_BLOCKS", "_VIEWS", "_LARGEST")
    intercept, blocks, views, largest = (getattr(estimator, name) for name in names)
    assert found.value == pytest.approx(intercept + blocks * 0.6 + views * 0.8 + largest * 0.4)
    assert 0 < found.value < 1
    assert found.error == estimator._ERROR
    for name, better in (("block_agreement", 1), ("view_agreement", 1), ("largest_share", -1)):
        other = estimate({**figures, name: figures[name] + 0.05})
        assert (other.value - found.value) * better > 0


@pytest.mark.parametrize("missing", ["block_agreement", "view_agreement"])
def test_without_a_figure_there_is_no_estimate(missing: str) -> None:
    figures = {"block_agreement": 0.6, "view_agreement": 0.8, "largest_share": 0.4}
    del figures[missing]
    assert estimate(figures) is None


def test_the_estimate_is_a_share() -> None:
    best = estimate({"block_agreement": 1.0, "view_agreement": 1.0, "largest_share": 0.25})
    worst = estimate({"block_agreement": 0.0, "view_agreement": 0.3, "largest_share": 1.0})
    assert (best.value, worst.value) == (1.0, 0.0)
