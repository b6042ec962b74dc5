import numpy as np
import pytest

from nnpm.training.adaptation.config import PriorConfig
from nnpm.training.adaptation.methods.method import softmax
from nnpm.training.adaptation.methods.prior import estimate_prior

ALL = np.ones(4, np.bool_)
PLAIN = PriorConfig(shrink_clips=0.0, least=0.0, closed_below=0.0)


def clips(*counts: int, sureness: float = 3.0, seed: int = 0) -> np.ndarray:
    """Logits that are calibrated for equal shares, of so many clips of each emotion."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(counts)), counts)
    # log p(x | y) of unit Gaussians, one axis an emotion
    x = rng.standard_normal((len(truth), len(counts)))
    x[np.arange(len(truth)), truth] += sureness
    return (sureness * x).astype(np.float32)


def found(logits: np.ndarray, config: PriorConfig = PLAIN, open_: np.ndarray = ALL) -> np.ndarray:
    return estimate_prior(logits, config, open_, np.random.default_rng(0))


def by_loops(logits: np.ndarray) -> np.ndarray:
    """EM again, clip by clip."""
    answers = softmax(logits).astype(np.float64)
    shares = np.full(answers.shape[1], 1 / answers.shape[1])
    for _ in range(100):
        moved = np.zeros_like(shares)
        for row in answers:
            moved += row * shares / (row @ shares)
        shares = moved / len(answers)
    return shares


def test_it_is_em_by_loops() -> None:
    logits = clips(30, 20, 10, 5, sureness=1.5)
    np.testing.assert_allclose(found(logits), by_loops(logits), atol=1e-4)


@pytest.mark.parametrize("counts", [(100, 100, 100, 100), (280, 40, 40, 40), (150, 150, 100, 0)])
def test_it_finds_the_shares_where_the_mean_answer_does_not(counts) -> None:
    logits = clips(*counts, sureness=2.0)
    truth = np.array(counts) / sum(counts)
    assert np.abs(found(logits) - truth).max() < 0.06
    if len(set(counts)) > 1:
        mean = softmax(logits).mean(0)
        assert np.abs(mean - truth).sum() > np.abs(found(logits) - truth).sum()


def test_few_clips_are_drawn_to_equal_shares() -> None:
    config = PriorConfig(shrink_clips=50.0)
    few, many = found(clips(14, 2, 2, 2), config), found(clips(1400, 200, 200, 200), config)
    assert few.max() < 0.45 < 0.65 < many.max()


def test_an_emotion_that_nobody_has_is_closed_and_one_that_somebody_has_is_not() -> None:
    config = PriorConfig()
    absent = found(clips(150, 150, 100, 0), config)
    assert absent[3] == 0.0
    rare = found(clips(150, 150, 80, 20), config)
    assert rare[3] >= 0.02
    assert absent.sum() == pytest.approx(1.0, rel=1e-5)


def test_with_few_clips_no_emotion_is_closed_lightly() -> None:
    assert (found(clips(5, 5, 5, 5, sureness=1.0), PriorConfig()) > 0).all()


def test_emotions_that_cannot_occur_have_no_share() -> None:
    open_ = np.array([True, False, True, True])
    prior = found(clips(30, 30, 30, 30), PriorConfig(), open_)
    assert prior[1] == 0.0
    assert prior.sum() == pytest.approx(1.0, rel=1e-5)
    off = found(clips(30, 0, 0, 0), PriorConfig(estimate=False), open_)
    np.testing.assert_allclose(off, [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)


def test_one_clip_and_certain_clips_are_finite() -> None:
    for logits in (clips(1, 0, 0, 0), 1e4 * np.eye(4, dtype=np.float32)):
        prior = found(logits, PriorConfig())
        assert np.isfinite(prior).all()
        assert prior.dtype == np.float32
