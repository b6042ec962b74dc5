import numpy as np
import pytest

from nnpm.training.adaptation.head import Source
from nnpm.training.adaptation.methods.neighbours import (
    confidence,
    neighbours,
    voice_space,
    voices,
    vote,
)


def unit(seed: int, *shape: int) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


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
    monkeypatch.setattr("nnpm.training.adaptation.methods.neighbours._ROWS_AT_ONCE", 5)
    for one, other in zip(both(), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


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


def test_the_voice_space_tells_speakers_apart_and_not_emotions() -> None:
    rng = np.random.default_rng(0)
    emotion, speaker = np.arange(600) % 4, np.arange(600) % 7
    by_emotion, by_speaker = 8 * rng.standard_normal((4, 12)), 2 * rng.standard_normal((7, 12))
    features = by_emotion[emotion] + by_speaker[speaker] + rng.standard_normal((600, 12))
    space = voice_space(Source(features.astype(np.float32), emotion, speaker), 30)
    assert space.shape == (12, 6)  # no more directions than speakers less one

    def apart(means: np.ndarray) -> float:
        return float(((means - means.mean(0)) @ space).std())

    assert apart(by_speaker) > 3 * apart(by_emotion) * 2 / 8
    # clips of unheard speakers with other emotions' shares are clustered by their speakers
    heard = rng.choice(4, 90, p=[0.7, 0.1, 0.1, 0.1])
    truth = np.arange(90) % 3
    clips = by_emotion[heard] + 2 * by_speaker[truth] + rng.standard_normal((90, 12))
    found = voices((clips @ space).astype(np.float32), 12, rng)
    purity = sum(np.bincount(truth[found == one]).max() for one in np.unique(found)) / 90
    assert purity > 0.9


def test_a_memory_of_one_speaker_has_a_voice_space() -> None:
    features = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    space = voice_space(Source(features, np.arange(9) % 3, np.zeros(9, np.int64)), 30)
    assert space.shape == (5, 1)
    assert np.isfinite(space).all()
