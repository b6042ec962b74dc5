"""Which clips a step draws, and what of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from nnpm.training.config import AugmentConfig, TrainConfig
from nnpm.training.corpora import Utterance
from nnpm.training.data.batches import Batch, BatchSampler, pad


def utterance(corpus: str, speaker: str, emotion: str, number: int) -> Utterance:
    return Utterance(Path(f"/{corpus}/{number}"), corpus, speaker, "en", emotion)


# in the big corpus one speaker and one emotion have nearly all clips
UTTERANCES = [
    *(utterance("big", "a", "angry", n) for n in range(850)),
    *(utterance("big", "b", "angry", n) for n in range(20)),
    *(utterance("big", "b", "sad", n) for n in range(30)),
    *(utterance("small", "c", "happy", n) for n in range(100)),
]


def sampler(seed: int = 0, clips=None, train=None, **augment: float) -> BatchSampler:
    if clips is None:  # every clip holds its own number
        clips = lambda index: np.full(9_000, index / 1_000, np.float32)  # noqa: E731
    train = TrainConfig(batch_size=40, fewest_per_corpus=8) if train is None else train
    return BatchSampler(UTTERANCES, clips, train, AugmentConfig(**augment), seed)


def unchanged(samples: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return samples


def same(one: Batch, other: Batch) -> bool:
    pairs = (("waveform", one.waveform, other.waveform), ("index", one.index, other.index))
    return all(a.shape == b.shape and torch.equal(a, b) for _, a, b in pairs)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    assert same(sampler().draw(5), sampler().draw(5))
    walked = sampler()
    for step in (3, 4):
        walked.draw(step)
    assert same(walked.draw(5), sampler().draw(5))
    assert not same(sampler().draw(5), sampler().draw(6))
    assert not same(sampler().draw(5), sampler(seed=1).draw(5))


def test_shares_are_by_the_root_of_the_size_and_even_within() -> None:
    even = sampler()
    even.change = unchanged
    drawn = [UTTERANCES[i] for step in range(25) for i in even.draw(step).index.tolist()]
    by_corpus = Counter(u.corpus for u in drawn)
    assert by_corpus == {"big": 25 * 30, "small": 25 * 10}  # 900 and 100 clips
    big = [u for u in drawn if u.corpus == "big"]
    assert Counter(u.emotion for u in big) == {"angry": 25 * 15, "sad": 25 * 15}
    speakers = Counter(u.speaker for u in big if u.emotion == "angry")
    assert speakers["a"] / 375 == pytest.approx(0.5, abs=0.1)


def test_a_small_corpus_has_clips_enough_for_its_statistics() -> None:
    few = sampler(train=TrainConfig(batch_size=8, fewest_per_corpus=6))
    assert few.counts.tolist() == [6, 6]


def test_clips_are_cut_at_random_within_the_lengths() -> None:
    ramp = lambda _: np.arange(32_000, dtype=np.float32)  # noqa: E731
    cut = sampler(clips=ramp, shortest_s=0.5, longest_s=1.0, join_p=0.0)
    cut.change = unchanged
    batch = cut.draw(0)
    starts = set()
    for row, length in zip(batch.waveform, batch.lengths.tolist(), strict=True):
        assert 8_000 <= length <= 16_000
        assert torch.equal(row[:length], torch.arange(length) + row[0])
        assert (row[length:] == 0).all()
        starts.add(int(row[0]))
    assert len(starts) > 30
    assert len(set(batch.lengths.tolist())) > 30


def test_a_short_clip_is_whole() -> None:
    short = sampler(clips=lambda _: np.ones(3_000, np.float32), join_p=0.0)
    short.change = unchanged
    assert set(short.draw(0).lengths.tolist()) == {3_000}


def test_joined_clips_are_of_one_speaker_and_emotion() -> None:
    seen: list[list[int]] = []

    def read(index: int) -> np.ndarray:
        return np.full(20_000, index, np.float32)

    def keep(samples: np.ndarray, _: np.random.Generator) -> np.ndarray:
        seen.append(sorted({int(value) for value in np.unique(samples)}))
        return samples

    joined = sampler(clips=read, join_p=1.0, shortest_s=2.0, longest_s=2.0)
    joined.change = keep
    batch = joined.draw(0)
    for index, parts in zip(batch.index.tolist(), seen, strict=True):
        assert index in parts
        groups = {(u.corpus, u.speaker, u.emotion) for u in (UTTERANCES[part] for part in parts)}
        assert len(groups) == 1
    assert sum(len(parts) == 2 for parts in seen) > 20
    assert set(batch.lengths.tolist()) == {32_000}


def test_clips_are_changed_before_they_are_padded() -> None:
    """Every row is what the augmentation made of a clip, and not of its padding."""
    batch = sampler(shortest_s=0.5, longest_s=0.5).draw(0)
    assert batch.waveform.shape[1] == int(batch.lengths.max())
    assert 7_000 <= int(batch.lengths.min()) < int(batch.lengths.max()) <= 9_200
    for row, length in zip(batch.waveform, batch.lengths.tolist(), strict=True):
        assert (row[length:] == 0).all()


def test_padding() -> None:
    waveform, lengths = pad([np.ones(2, np.float32), np.full(3, 2.0, np.float32)])
    assert waveform.tolist() == [[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]]
    assert lengths.tolist() == [2, 3]
