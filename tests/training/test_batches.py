from pathlib import Path

import numpy as np
import pytest

from nnpm.training.config import AugmentConfig
from nnpm.training.corpora import Utterance
from nnpm.training.data.batches import BalancedSampler, crop, training_batches
from nnpm.training.data.clips import Ragged, cached


def utterance(corpus: str, speaker: str, emotion: str, number: int) -> Utterance:
    return Utterance(Path(f"/{corpus}/{number}"), corpus, speaker, "en", emotion)


def test_draws_are_even_over_emotions_and_speakers(rng: np.random.Generator) -> None:
    # in the big corpus one speaker and one emotion have nearly all clips
    utterances = [utterance("big", "a", "angry", n) for n in range(870)]
    utterances += [utterance("big", "b", "angry", n) for n in range(20)]
    utterances += [utterance("big", "b", "sad", n) for n in range(10)]
    utterances += [utterance("small", "c", "happy", n) for n in range(100)]
    drawn = BalancedSampler(utterances).draw(20_000, rng)
    share = lambda test: np.mean([test(utterances[i]) for i in drawn])  # noqa: E731
    assert share(lambda u: u.corpus == "big") == pytest.approx(0.75, abs=0.02)  # 30 : 10
    assert share(lambda u: u.emotion == "sad") == pytest.approx(0.375, abs=0.02)
    assert share(lambda u: u.emotion == "angry" and u.speaker == "b") == pytest.approx(
        0.1875, abs=0.02
    )


def test_crop_is_a_stretch_of_the_clip(rng: np.random.Generator) -> None:
    clip = np.arange(50, dtype=np.float32)[:, None]
    starts = {int(crop(clip, 10, rng)[0, 0]) for _ in range(500)}
    assert starts == set(range(41))
    assert np.array_equal(np.diff(crop(clip, 10, rng)[:, 0]), np.ones(9))


def test_a_short_clip_is_repeated_whole(rng: np.random.Generator) -> None:
    clip = np.arange(7, dtype=np.float32)[:, None]
    repeated = crop(clip, 21, rng)[:, 0]
    assert np.array_equal(np.bincount(repeated.astype(int)), np.full(7, 3))


def features(tmp_path: Path, name: str, value: float) -> Ragged:
    rows = [np.full((30 + n, 4), value, np.float32) for n in range(12)]
    return cached(tmp_path / name, lambda: rows)


def test_batches_are_full_and_draw_variants_by_share(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    versions = [features(tmp_path, "clean", 0.0), features(tmp_path, "varied", 1.0)]
    config = AugmentConfig(clean_share=0.25, shortest_crop=10, longest_crop=20)
    indices = rng.integers(0, 12, 810)
    batches = list(training_batches(versions, indices, config, 8, rng))
    assert len(batches) == 101  # the incomplete one is left out
    assert {batch.shape[3] for batch, _ in batches} == set(range(10, 21))
    assert all(batch.shape[:3] == (8, 1, 4) for batch, _ in batches)
    assert np.mean([batch.mean() for batch, _ in batches]) == pytest.approx(0.75, abs=0.05)
    assert np.array_equal(np.concatenate([index for _, index in batches]), indices[:808])


def test_cache_makes_rows_once_and_selects_views(tmp_path: Path) -> None:
    first = features(tmp_path, "cache", 2.0)
    again = cached(tmp_path / "cache", lambda: pytest.fail("made again"))
    assert len(again) == len(first) == 12
    chosen = again.select([11, 0])
    assert [row.shape for row in chosen] == [(41, 4), (30, 4)]
    assert chosen[0].dtype == np.float32
    assert not list(tmp_path.glob("*.tmp"))


def test_an_interrupted_cache_is_not_half_there(tmp_path: Path) -> None:
    def broken():
        yield np.zeros((3, 4), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache", broken)
    assert not list(tmp_path.iterdir())
