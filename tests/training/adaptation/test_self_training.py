import math

import pytest
import torch
from pydantic import ValidationError

from nnpm.training.adaptation.config import SelfTrainingConfig
from nnpm.training.adaptation.methods.self_training import SelfTraining, select

THRESHOLD = 0.6
"""About half of the problem's clips are above."""


def by_threshold(probabilities, threshold: float) -> tuple[list[int], list[bool]]:
    """The selection again, clip by clip."""
    label = [max(range(len(row)), key=row.__getitem__) for row in probabilities]
    return label, [row[c] >= threshold for row, c in zip(probabilities, label, strict=True)]


def balanced(probabilities, share: float) -> tuple[list[int], list[bool]]:
    """The balanced one: thresholds of each emotion, then the largest ratio to them."""
    emotions = range(len(probabilities[0]))
    answers, _ = by_threshold(probabilities, 0.0)
    thresholds = {}
    for emotion in emotions:
        own = [r[emotion] for r, c in zip(probabilities, answers, strict=True) if c == emotion]
        own.sort(reverse=True)
        thresholds[emotion] = own[max(1, round(share * len(own))) - 1] if own else 1.0
    label, trusted = [], []
    for row in probabilities:
        ratios = [row[emotion] / thresholds[emotion] for emotion in emotions]
        label.append(max(emotions, key=ratios.__getitem__))
        trusted.append(max(ratios) >= 1.0)
    return label, trusted


@pytest.fixture
def probabilities() -> torch.Tensor:
    """60 clips; emotion 0 is preferred, and 3 answered by none."""
    logits = 1.5 * torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    return (logits + torch.tensor([1.0, 0.0, 0.0, -9.0])).softmax(1).double()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_a_threshold_is_what_it_is_clip_by_clip(probabilities, threshold: float) -> None:
    label, trusted = select(
        probabilities, SelfTrainingConfig(selection="threshold", threshold=threshold)
    )
    assert (label.tolist(), trusted.tolist()) == by_threshold(probabilities.tolist(), threshold)


def test_a_clip_at_the_threshold_is_trusted() -> None:
    config = SelfTrainingConfig(selection="threshold", threshold=0.75)
    assert select(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), config)[1].tolist() == [True, False]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_balanced_is_what_it_is_clip_by_clip(probabilities, share: float) -> None:
    probabilities = probabilities.float()
    config = SelfTrainingConfig(selection="balanced", share=share)
    label, trusted = select(probabilities, config)
    assert (label.tolist(), trusted.tolist()) == balanced(probabilities.tolist(), share)


def test_balanced_takes_the_same_share_of_each_answer_and_lets_rare_ones_win(probabilities) -> None:
    answers = probabilities.argmax(1)
    label, trusted = select(probabilities, SelfTrainingConfig(selection="balanced", share=0.5))
    for emotion in range(3):
        count = (answers == emotion).sum().item()
        taken = (trusted & (answers == emotion)).sum().item()
        assert taken >= round(0.5 * count) > 0
    moved = label != answers
    assert (answers[moved] == 0).any()  # away from the preferred one
    assert not (label == 3).any()


def test_the_loss_is_the_brute_force_one(problem) -> None:
    method = problem.method(SelfTraining, weight=0.7, selection="threshold", threshold=THRESHOLD)
    batch = problem.batch()
    with torch.no_grad():
        method.refresh(problem.head)
    assert 0 < method.trusted.sum() < 20
    costs = []
    for row in batch.target_logits.tolist():
        total = sum(math.exp(x) for x in row)
        best = max(math.exp(x) / total for x in row)
        costs.append(-math.log(best) if best >= THRESHOLD else 0.0)
    expected = 0.7 * sum(costs) / len(costs)
    assert method.loss(batch, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_only_trusted_clips_have_a_gradient_and_it_raises_their_label(problem) -> None:
    method = problem.method(SelfTraining, selection="threshold", threshold=THRESHOLD)
    with torch.no_grad():
        method.refresh(problem.head)
    batch = problem.batch()
    batch.target_logits.retain_grad()
    method.loss(batch, 0.5).backward()
    gradient = batch.target_logits.grad
    assert (gradient[~method.trusted] == 0).all()
    assert (gradient[method.trusted].gather(1, method.label[method.trusted, None]) < 0).all()


def test_labels_belong_to_clips_whatever_the_batch_and_stay_until_the_next_refresh(problem) -> None:
    method = problem.method(SelfTraining, selection="threshold", threshold=THRESHOLD)
    with torch.no_grad():
        method.refresh(problem.head)
        label = method.label.clone()
        problem.head.head.classes.copy_(problem.head.head.classes.flip(0))  # all answers change
        batch = problem.batch()
        clips = torch.tensor([7, 3])
        part = type(batch)(
            *(getattr(batch, name) for name in type(batch).__slots__[:4]),
            target_index=clips,
            target_projection=batch.target_projection[clips],
            target_logits=batch.target_logits[clips],
        )
        rows = torch.arange(2)
        costs = -batch.target_logits[clips].log_softmax(1)[rows, label[clips]]
        expected = (costs * method.trusted[clips]).mean()
        torch.testing.assert_close(
            method.loss(part, 0.5), method.config.self_training.weight * expected
        )
        method.refresh(problem.head)
    torch.testing.assert_close(method.label, 3 - label)


def test_the_recorded_clips_are_labelled_and_not_their_views(problem) -> None:
    problem.target.views.fill_(torch.nan)
    method = problem.method(SelfTraining, selection="threshold")
    with torch.no_grad():
        method.refresh(problem.head)
        recorded = problem.head.classify(problem.head.project_target(problem.target.pooled))
    assert method.label.tolist() == recorded.argmax(1).tolist()


def test_nobody_trusted_costs_nothing(problem) -> None:
    method = problem.method(SelfTraining, selection="threshold", threshold=1.0)
    with torch.no_grad():
        method.refresh(problem.head)
    loss = method.loss(problem.batch(), 0.5)
    loss.backward()
    assert loss.item() == 0.0
    assert (problem.head.head.projection.weight.grad == 0).all()


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(ValidationError, match="selection"):
        SelfTrainingConfig(selection="all")
