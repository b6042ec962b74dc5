import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.training.adaptation.config import NNPMConfig
from nnpm.training.adaptation.pseudo_labels import (
    balanced,
    confidence,
    prior,
    pseudo_labels,
    smoothed,
    vote,
)

PLAIN = NNPMConfig(vote_share=0.0, balance=0.0, smoothing=0.0)
"""The classifier's answer, and no more."""


def unit(seed: int, *shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def answers(seed: int, clips: int) -> torch.Tensor:
    logits = 2 * torch.randn(clips, 4, generator=torch.Generator().manual_seed(seed))
    return (logits + torch.tensor([1.0, 0.0, 0.0, -1.0])).softmax(1)


def vote_by_loops(projection, slots, emotion, num_emotions: int, k: int) -> list[list[float]]:
    rows = []
    for clip in projection.double().tolist():
        similar = [sum(a * b for a, b in zip(clip, s, strict=True)) for s in slots.tolist()]
        row = []
        for expected in range(num_emotions):
            own = sorted(s for s, e in zip(similar, emotion, strict=True) if e == expected)[-k:]
            row.append(sum(own) / len(own) if own else min(similar))
        rows.append(row)
    return rows


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_vote_is_the_brute_force_one(k: int) -> None:
    emotion = torch.tensor([0, 2, 0, 1, 2, 2, 0, 0, 2, 0, 4, 0])  # one of 1 and of 4, none of 3
    projection, slots = unit(0, 7, 5), unit(1, 12, 5)
    expected = vote_by_loops(projection, slots, emotion.tolist(), 5, k)
    np.testing.assert_allclose(vote(projection, slots, emotion, 5, k), expected, atol=1e-6)


def test_vote_and_smoothing_are_the_same_in_pieces(monkeypatch) -> None:
    projection, slots, emotion = unit(0, 23, 5), unit(1, 12, 5), torch.arange(12) % 4
    found = answers(0, 23)
    whole = vote(projection, slots, emotion, 4, 2), smoothed(found, projection, 0.5, 3)
    monkeypatch.setattr("nnpm.training.adaptation.pseudo_labels._ROWS_AT_ONCE", 5)
    torch.testing.assert_close(vote(projection, slots, emotion, 4, 2), whole[0])
    torch.testing.assert_close(smoothed(found, projection, 0.5, 3), whole[1])


def test_prior_lies_between_the_mean_answer_and_equal_shares() -> None:
    found = answers(1, 9)
    mean = [sum(column) / 9 for column in zip(*found.tolist(), strict=True)]
    for balance in (0.0, 0.3, 1.0):
        expected = [balance / 4 + (1 - balance) * share for share in mean]
        np.testing.assert_allclose(prior(found, balance), expected, rtol=1e-5)


def test_balanced_hits_the_shares_and_keeps_the_order_within_an_emotion() -> None:
    before, shares = answers(2, 40), torch.tensor([0.1, 0.2, 0.3, 0.4])
    after = balanced(before, shares)
    torch.testing.assert_close(after.mean(0), shares, atol=2e-3, rtol=0)
    torch.testing.assert_close(after.sum(1), torch.ones(40))
    # Sinkhorn only scales rows and columns: the odds ratios of two clips are what they were
    odds = [(x[:, 0] / x[:, 1])[1:] / (x[:, 0] / x[:, 1])[0] for x in (before, after)]
    torch.testing.assert_close(*odds, rtol=1e-3, atol=0)


def test_what_is_balanced_already_stays() -> None:
    even = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).repeat(4, 1)
    even = torch.stack([row.roll(shift) for shift, row in enumerate(even)])
    torch.testing.assert_close(balanced(even, torch.full((4,), 0.25)), even)
    found = answers(3, 12)
    torch.testing.assert_close(balanced(found, found.mean(0)), found)


def test_balanced_takes_an_emotion_that_nobody_answers() -> None:
    never = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    found = balanced(never, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(found, torch.full((3, 2), 0.5))


def test_smoothed_is_the_brute_force_one_and_leaves_the_clip_itself_out() -> None:
    found, projection = answers(4, 11), unit(4, 11, 5)
    for share, neighbours in ((0.3, 4), (1.0, 1), (0.5, 99)):
        expected = []
        for i in range(11):
            others = [j for j in range(11) if j != i]
            others.sort(key=lambda j: -float(projection[i] @ projection[j]))
            mean = found[others[:neighbours]].mean(0)
            expected.append((1 - share) * found[i] + share * mean)
        torch.testing.assert_close(
            smoothed(found, projection, share, neighbours), torch.stack(expected)
        )


def test_nothing_to_smooth_with() -> None:
    found, projection = answers(5, 6), unit(5, 6, 5)
    assert smoothed(found, projection, 0.0, 3) is found
    assert smoothed(found[:1], projection[:1], 0.9, 3).equal(found[:1])


def test_confidence_is_0_of_equal_shares_and_1_where_sure() -> None:
    found = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.5, 0.3, 0.2, 0.0]])
    torch.testing.assert_close(confidence(found), torch.tensor([0.0, 1.0, 1 / 3]))


def decided(seed: int = 0, push: tuple[float, ...] = (0, 0, 0, 0), **switches: object):
    """Pseudo labels of 16 clips; slots are the eight axes, so that similarities are free."""
    emotion = torch.arange(4).repeat(2)
    generator = torch.Generator().manual_seed(seed)
    # not on the sphere: a similarity may be whatever it is set to
    projection = 0.1 * torch.rand(16, 8, generator=generator)
    logits = torch.randn(16, 4, generator=generator)
    projection = projection + torch.tensor(push).repeat(2)
    config = PLAIN.model_copy(update=switches)
    return logits, pseudo_labels(config, logits, projection, torch.eye(8), emotion)


def test_vote_share_0_is_the_classifier_and_1_the_memory() -> None:
    logits, found = decided()
    torch.testing.assert_close(found, logits.softmax(1))
    for centring in (False, True):
        first = decided(vote_share=1.0, centring=centring)[1]
        generator = torch.Generator().manual_seed(0)
        similar = (0.1 * torch.rand(16, 8, generator=generator)).numpy()
        votes = np.maximum(similar[:, :4], similar[:, 4:])  # k = 1
        votes -= votes.mean(0) if centring else votes.mean()
        votes = votes / votes.std() * 1.5
        expected = np.exp(votes) / np.exp(votes).sum(1, keepdims=True)
        one = decided(vote_share=1.0, centring=centring, vote_slots=1)[1]
        np.testing.assert_allclose(one, expected, rtol=1e-4)
        assert not torch.allclose(first, one)


def test_the_classifier_and_the_vote_are_mixed_as_logarithms() -> None:
    logits, memory = decided(vote_share=1.0)
    mixed = decided(vote_share=0.3)[1]
    expected = (0.7 * logits.log_softmax(1) + 0.3 * memory.log()).softmax(1)
    torch.testing.assert_close(mixed, expected)


def test_centring_removes_what_makes_one_emotion_sound_near_to_all_clips() -> None:
    plain = decided(vote_share=1.0)[1]
    loud = (0.5, 0.0, 0.0, 0.0)
    torch.testing.assert_close(decided(push=loud, vote_share=1.0)[1], plain, rtol=1e-4, atol=1e-5)
    swallowed = decided(push=loud, vote_share=1.0, centring=False)[1]
    assert (swallowed.argmax(1) == 0).all()
    assert not (plain.argmax(1) == 0).all()


def test_balance_and_smoothing_come_last() -> None:
    logits, even = decided(balance=1.0)
    torch.testing.assert_close(even, balanced(logits.softmax(1), torch.full((4,), 0.25)))
    halfway = decided(balance=0.5)[1]
    torch.testing.assert_close(halfway, balanced(logits.softmax(1), prior(logits.softmax(1), 0.5)))
    generator = torch.Generator().manual_seed(0)
    projection = 0.1 * torch.rand(16, 8, generator=generator)
    blurred = decided(balance=1.0, smoothing=0.4, smoothing_neighbours=3)[1]
    torch.testing.assert_close(blurred, smoothed(even, projection, 0.4, 3))


def test_one_clip_and_a_memory_that_says_the_same_of_all_are_finite() -> None:
    found = pseudo_labels(
        NNPMConfig(), torch.randn(1, 4), unit(0, 1, 8), torch.ones(4, 8) / 8**0.5, torch.arange(4)
    )
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(1))
