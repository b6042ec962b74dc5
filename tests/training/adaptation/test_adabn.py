from dataclasses import replace

import numpy as np
import pytest

from nnpm.service.inference.head import Head
from nnpm.training.adaptation.config import AdaptConfig, StatisticsConfig
from nnpm.training.adaptation.head import Source, Target
from nnpm.training.adaptation.methods.adabn import with_prior_aware_statistics, with_statistics


def test_statistics_are_shrunk_to_the_sources_by_the_number_of_clips(problem) -> None:
    config = StatisticsConfig(mean_clips=30, deviation_clips=60)
    found = with_statistics(problem.head, problem.target, config)
    clips = problem.target.pooled
    np.testing.assert_allclose(found.mean, 20 / 50 * clips.mean(0), rtol=1e-5)  # the source's is 0
    np.testing.assert_allclose(found.deviation, clips.std(0) ** (20 / 80), rtol=1e-5)  # and 1
    whole = with_statistics(
        problem.head, problem.target, StatisticsConfig(mean_clips=0, deviation_clips=0)
    )
    np.testing.assert_allclose(whole.standardise(clips).mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(whole.standardise(clips).std(0), 1, rtol=1e-5)


def test_without_statistics_or_with_clips_that_could_be_read_from_them_they_stay(problem) -> None:
    off = StatisticsConfig(adapt=False)
    assert with_statistics(problem.head, problem.target, off) is problem.head
    few = Target(problem.target.pooled[:9], problem.target.views[:, :9])
    assert with_statistics(problem.head, few, StatisticsConfig()) is problem.head


def test_a_feature_that_hardly_varies_is_not_blown_up(problem) -> None:
    problem.target.pooled[:, 2] = 5.0
    config = StatisticsConfig(mean_clips=0, deviation_clips=0)
    found = with_statistics(problem.head, problem.target, config)
    assert found.deviation[2] == pytest.approx(0.1)  # of the source's 1
    assert found.deviation.dtype == np.float32


@pytest.fixture
def shifted() -> tuple[Head, Source, np.ndarray]:
    """A head that knows four blobs, its memory, and 400 clips of emotions 0 and 1 alone."""
    rng = np.random.default_rng(0)
    centres = 3.0 * np.eye(4, 6)
    emotion = np.arange(400) % 4
    pooled = centres[emotion] + rng.standard_normal((400, 6))
    mean, deviation = pooled.mean(0), pooled.std(0)
    directions = (centres - centres.mean(0)) / deviation
    head = Head(
        mean, deviation, np.eye(6), np.zeros(6),
        directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32(8.0),
    )  # fmt: skip
    head = Head(*(np.asarray(getattr(head, n), np.float32) for n in Head.__slots__))
    source = Source(head.standardise(pooled.astype(np.float32)), emotion, np.arange(400) % 9)
    clips = centres[np.arange(400) % 2] + rng.standard_normal((400, 6)) + 5.0
    return head, source, clips.astype(np.float32)


def test_a_mean_that_comes_of_unequal_shares_is_not_taken_for_the_languages(shifted) -> None:
    head, source, clips = shifted
    target = Target(clips, clips[None][:0])

    def moved(strength: float) -> Head:
        statistics = {"prior_aware": strength, "mean_clips": 0, "deviation_clips": 0}
        config = AdaptConfig.model_validate(
            {"statistics": statistics, "prior": {"shrink_clips": 0}}
        )
        rng = np.random.default_rng(0)
        return with_prior_aware_statistics(head, source, target, config, rng, 1.0)

    truth = head.mean + 5.0  # the language moves every feature by 5
    plain, aware = (np.abs(moved(strength).mean - truth).max() for strength in (0.0, 1.0))
    assert plain > 0.5
    assert aware < 0.5 * plain
    np.testing.assert_allclose(moved(1.0).deviation, head.deviation, rtol=0.25)
    same = with_statistics(head, target, StatisticsConfig(mean_clips=0, deviation_clips=0))
    np.testing.assert_array_equal(moved(0.0).mean, same.mean)


def test_equal_shares_leave_the_statistics_as_they_are(shifted) -> None:
    head, source, _ = shifted
    clips = head.mean + head.deviation * source.features + 5.0
    target = Target(clips, clips[None][:0])
    config = AdaptConfig.model_validate({"statistics": {"prior_aware": 1.0}})
    found = with_prior_aware_statistics(head, source, target, config, np.random.default_rng(0), 1)
    expected = with_statistics(head, target, config.statistics)
    np.testing.assert_allclose(found.mean, expected.mean, atol=0.05)
    np.testing.assert_allclose(found.deviation, expected.deviation, rtol=0.05)


def test_a_memory_without_some_emotion_and_a_known_set_are_finite(shifted) -> None:
    head, source, clips = shifted
    kept = source.emotion != 2
    source = Source(source.features[kept], source.emotion[kept], source.speaker[kept])
    target = replace(Target(clips, clips[None][:0]), occurs=(0, 2))
    rng = np.random.default_rng(0)
    found = with_prior_aware_statistics(head, source, target, AdaptConfig(), rng, 1.0)
    assert np.isfinite(found.mean).all()
    assert (found.deviation > 0).all()
    assert found.mean.dtype == found.deviation.dtype == np.float32
