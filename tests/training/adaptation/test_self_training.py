import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from nnpm.training.adaptation.config import SelfTrainingConfig
from nnpm.training.adaptation.methods.method import softmax
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
def probabilities() -> np.ndarray:
    """60 clips; emotion 0 is preferred, and 3 answered by none."""
    logits = 1.5 * np.random.default_rng(1).standard_normal((60, 4))
    return softmax(logits + np.array([1.0, 0.0, 0.0, -9.0])).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_a_threshold_is_what_it_is_clip_by_clip(probabilities, threshold: float) -> None:
    label, trusted = select(
        probabilities, SelfTrainingConfig(selection="threshold", threshold=threshold)
    )
    assert (label.tolist(), trusted.tolist()) == by_threshold(probabilities.tolist(), threshold)


def test_a_clip_at_the_threshold_is_trusted() -> None:
    config = SelfTrainingConfig(selection="threshold", threshold=0.75)
    assert select(np.array([[0.75, 0.25], [0.5, 0.5]]), config)[1].tolist() == [True, False]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_balanced_is_what_it_is_clip_by_clip(probabilities, share: float) -> None:
    config = SelfTrainingConfig(selection="balanced", share=share)
    label, trusted = select(probabilities, config)
    assert (label.tolist(), trusted.tolist()) == balanced(probabilities.tolist(), share)


def test_balanced_takes_the_same_share_of_each_answer_and_lets_rare_ones_win(probabilities) -> None:
    answers = probabilities.argmax(1)
    label, trusted = select(probabilities, SelfTrainingConfig(selection="balanced", share=0.5))
    for emotion in range(3):
        count = int((answers == emotion).sum())
        taken = int((trusted & (answers == emotion)).sum())
        assert taken >= round(0.5 * count) > 0
    assert (answers[label != answers] == 0).any()  # away from the preferred one
    assert not (label == 3).any()


def refreshed(problem, **section: object) -> SelfTraining:
    method = problem.method(SelfTraining, **section)
    method.refresh(problem.head)
    return method


def test_the_loss_is_the_brute_force_one(problem) -> None:
    method = refreshed(problem, weight=0.7, selection="threshold", threshold=THRESHOLD)
    assert 0 < method.trusted.sum() < 20
    costs = []
    for row in problem.batch().target_logits.tolist():
        total = sum(math.exp(x) for x in row)
        best = max(math.exp(x) / total for x in row)
        costs.append(-math.log(best) if best >= THRESHOLD else 0.0)
    assert problem.loss(method) == pytest.approx(0.7 * sum(costs) / len(costs), rel=1e-4)


def test_steps_raise_the_labels(problem) -> None:
    losses = problem.descend(refreshed(problem, selection="threshold", threshold=THRESHOLD))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_labels_belong_to_clips_whatever_the_batch_and_stay_until_the_next_refresh(problem) -> None:
    method = refreshed(problem, selection="threshold", threshold=THRESHOLD)
    label = method.label.copy()
    problem.head = replace(problem.head, classes=problem.head.classes[::-1])  # all answers change
    batch, clips = problem.batch(), np.array([7, 3])
    part = replace(
        batch,
        target_index=clips,
        target_projection=batch.target_projection[clips],
        target_logits=batch.target_logits[clips],
    )
    answers = np.log(softmax(batch.target_logits))[clips, label[clips]]
    expected = (-answers * method.trusted[clips]).mean()
    assert method.loss(part, 0.5, {}) == pytest.approx(expected, rel=1e-4)
    method.refresh(problem.head)
    assert method.label.tolist() == (3 - label).tolist()


def test_the_recorded_clips_are_labelled_and_not_their_views(problem) -> None:
    problem.target.views.fill(np.nan)
    method = refreshed(problem, selection="threshold")
    assert method.label.tolist() == problem.batch().target_logits.argmax(1).tolist()


def test_nobody_trusted_costs_nothing(problem) -> None:
    loss, slope = problem.slope(refreshed(problem, selection="threshold", threshold=1.0))
    assert loss == 0.0
    assert (slope["weight"] == 0).all()


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(ValidationError, match="selection"):
        SelfTrainingConfig(selection="all")
