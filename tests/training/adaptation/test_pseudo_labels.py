from dataclasses import dataclass

import numpy as np
import pytest

from nnpm.training.adaptation.config import NNPMConfig
from nnpm.training.adaptation.methods.method import log_softmax, softmax
from nnpm.training.adaptation.methods.pseudo_labels import (
    balanced,
    confidence,
    neighbours,
    pseudo_labels,
    smoothed,
    voices,
    vote,
)

PLAIN = NNPMConfig(vote_share=0.0, balance=0.0, smoothing=0.0)
"""The classifier's answer, and no more."""

ALL, EVEN = np.ones(4, np.bool_), np.full(4, 0.25, np.float32)


def unit(seed: int, *shape: int) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def answers(seed: int, clips: int) -> np.ndarray:
    logits = 2 * np.random.default_rng(seed).standard_normal((clips, 4))
    return softmax((logits + np.array([1.0, 0.0, 0.0, -1.0])).astype(np.float32))


def vote_by_loops(projection, slots, emotion, num_emotions: int, k: int) -> list[list[float]]:
    rows = []
    for clip in projection.tolist():
        similar = [sum(a * b for a, b in zip(clip, s, strict=True)) for s in slots.tolist()]
        row = []
        for expected in range(num_emotions):
            own = sorted(s for s, e in zip(similar, emotion, strict=True) if e == expected)[-k:]
            row.append(sum(own) / len(own) if own else min(similar))
        rows.append(row)
    return rows


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_vote_is_the_brute_force_one(k: int) -> None:
    emotion = np.array([0, 2, 0, 1, 2, 2, 0, 0, 2, 0, 4, 0])  # one of 1 and of 4, none of 3
    projection, slots = unit(0, 7, 5), unit(1, 12, 5)
    expected = vote_by_loops(projection, slots, emotion.tolist(), 5, k)
    np.testing.assert_allclose(vote(projection, slots, emotion, 5, k), expected, atol=1e-6)


@pytest.mark.parametrize("voice", [None, np.arange(23) % 4])
def test_vote_and_neighbours_are_the_same_in_pieces(monkeypatch, voice) -> None:
    projection, slots, emotion = unit(0, 23, 5), unit(1, 12, 5), np.arange(12) % 4

    def both() -> tuple[np.ndarray, np.ndarray]:
        found = np.sort(neighbours(projection, 3, voice), axis=1)
        return vote(projection, slots, emotion, 4, 2), found

    whole = both()
    monkeypatch.setattr("nnpm.training.adaptation.methods.pseudo_labels._ROWS_AT_ONCE", 5)
    for one, other in zip(both(), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_balanced_hits_the_shares_and_keeps_the_order_within_an_emotion() -> None:
    before, shares = answers(2, 40), np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    after = balanced(before, shares)
    np.testing.assert_allclose(after.mean(0), shares, atol=2e-3)
    np.testing.assert_allclose(after.sum(1), 1, rtol=1e-5)
    # Sinkhorn only scales rows and columns: the odds ratios of two clips are what they were
    odds = [(x[:, 0] / x[:, 1])[1:] / (x[:, 0] / x[:, 1])[0] for x in (before, after)]
    np.testing.assert_allclose(odds[0], odds[1], rtol=1e-3)
    halfway = balanced(before, shares, 0.5)
    np.testing.assert_allclose(halfway.mean(0), (shares + before.mean(0)) / 2, atol=2e-3)


def test_what_is_balanced_already_stays() -> None:
    found = answers(3, 12)
    np.testing.assert_allclose(balanced(found, found.mean(0)), found, atol=1e-5)
    np.testing.assert_allclose(balanced(found, EVEN, 0.0), found, atol=1e-5)


def test_balanced_takes_an_emotion_that_nobody_answers_and_one_that_is_closed() -> None:
    never = np.array([[1.0, 0.0]] * 3, np.float32)
    np.testing.assert_allclose(balanced(never, np.array([0.5, 0.5])), np.full((3, 2), 0.5))
    closed = balanced(np.full((3, 2), 0.5, np.float32), np.array([1.0, 0.0]))
    np.testing.assert_allclose(closed, never, atol=1e-6)


def test_neighbours_are_the_nearest_others_and_of_other_voices_where_voices_are_given() -> None:
    projection, voice = unit(4, 11, 5), np.arange(11) % 3
    for given in (None, voice):
        found = neighbours(projection, 4, given)
        for i in range(11):
            others = [j for j in range(11) if j != i and (given is None or given[j] != given[i])]
            others.sort(key=lambda j: -float(projection[i] @ projection[j]))
            assert sorted(found[i].tolist()) == sorted(others[:4])


def test_a_clip_without_enough_other_voices_stands_for_those_it_lacks() -> None:
    found = neighbours(unit(4, 5, 3), 3, np.array([0, 0, 0, 0, 1]))
    assert sorted(found[0].tolist()) == [0, 0, 4]
    assert (neighbours(unit(4, 3, 3), 2, np.zeros(3, np.int64)) == np.arange(3)[:, None]).all()
    assert neighbours(unit(4, 1, 3), 3).shape == (1, 0)


def test_smoothed_is_the_mean_over_the_neighbours() -> None:
    found, nearest = answers(4, 6), np.array([[1, 2], [0, 2], [5, 5], [4, 0], [3, 3], [0, 1]])
    for share in (0.3, 1.0):
        expected = [
            (1 - share) * found[i] + share * (found[a] + found[b]) / 2
            for i, (a, b) in enumerate(nearest)
        ]
        np.testing.assert_allclose(smoothed(found, nearest, share), expected, rtol=1e-5)
    assert smoothed(found, nearest, 0.0) is found
    assert smoothed(found, nearest[:, :0], 0.9) is found


def test_confidence_is_0_of_equal_shares_and_1_where_sure() -> None:
    found = np.array([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.5, 0.3, 0.2, 0.0]])
    np.testing.assert_allclose(confidence(found, 4), [0.0, 1.0, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(confidence(found, 2), [0.0, 1.0, 0.0], rtol=1e-6)


def test_voices_are_found_where_they_lie_apart() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    pooled = 6 * rng.standard_normal((3, 8))[truth] + rng.standard_normal((60, 8))
    found = voices(pooled.astype(np.float32), 6, rng)  # more clusters than voices
    for cluster in np.unique(found):
        assert len(set(truth[found == cluster])) == 1
    assert len(set(voices(pooled[:2].astype(np.float32), 5, rng))) == 2


@dataclass
class Decided:
    """Pseudo labels of 16 clips from free logits and votes."""

    logits: np.ndarray
    votes: np.ndarray
    nearest: np.ndarray

    def labels(self, shares=EVEN, open_=ALL, **switches: object) -> np.ndarray:
        config = PLAIN.model_copy(update=switches)
        return pseudo_labels(config, self.logits, self.votes, self.nearest, shares, open_)


@pytest.fixture
def given() -> Decided:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((16, 4)).astype(np.float32)
    votes = 0.1 * rng.random((16, 4), np.float32)
    return Decided(logits, votes, rng.integers(16, size=(16, 3)))


def test_vote_share_0_is_the_classifier_and_1_the_memory(given) -> None:
    np.testing.assert_allclose(given.labels(), softmax(given.logits), rtol=1e-5)
    for centring in (False, True):
        votes = given.votes - (given.votes.mean(0) if centring else given.votes.mean())
        expected = softmax(votes / votes.std() * 1.5)
        found = given.labels(vote_share=1.0, centring=centring)
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_classifier_and_the_vote_are_mixed_as_logarithms(given) -> None:
    memory = np.log(given.labels(vote_share=1.0))
    expected = softmax(0.7 * log_softmax(given.logits) + 0.3 * memory)
    np.testing.assert_allclose(given.labels(vote_share=0.3), expected, rtol=1e-4)


def test_centring_removes_what_makes_one_emotion_sound_near_to_all_clips(given) -> None:
    plain = given.labels(vote_share=1.0)
    given.votes[:, 0] += 0.5
    np.testing.assert_allclose(given.labels(vote_share=1.0), plain, rtol=1e-3)
    swallowed = given.labels(vote_share=1.0, centring=False)
    assert (swallowed.argmax(1) == 0).all()
    assert not (plain.argmax(1) == 0).all()


def test_balance_and_smoothing_come_last(given) -> None:
    shares = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
    even = given.labels(shares, balance=0.5)
    np.testing.assert_allclose(even, balanced(softmax(given.logits), shares, 0.5), rtol=1e-4)
    blurred = given.labels(shares, balance=0.5, smoothing=0.4)
    np.testing.assert_allclose(blurred, smoothed(even, given.nearest, 0.4), rtol=1e-5)


def test_emotions_that_do_not_occur_or_are_closed_get_nothing(given) -> None:
    shares = np.array([0.5, 0.5, 0.0, 0.0], np.float32)
    found = given.labels(shares, vote_share=0.5, balance=0.5, smoothing=0.5)
    assert np.abs(found[:, 2:]).max() < 1e-6
    found = given.labels(open_=np.array([True, True, True, False]), vote_share=0.5)
    assert (found[:, 3] == 0).all()


def test_one_clip_and_a_memory_that_says_the_same_of_all_are_finite() -> None:
    logits, votes = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    found = pseudo_labels(NNPMConfig(), logits, votes, np.zeros((1, 0), np.int64), EVEN, ALL)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
