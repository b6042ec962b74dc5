"""The decision, fitted on made-up features whose odds are known."""

from dataclasses import replace

import numpy as np
import pytest

from nnpm.service.inference.bundle import Memory
from nnpm.service.inference.head import Head
from nnpm.training.bundle.calibration import (
    Labelled,
    _fit_logistic,
    calibrate,
    cross_fit,
    negative_log_likelihood,
)
from nnpm.training.bundle.prototypes import Prototypes, answer
from nnpm.training.evaluation import expected_calibration_error

WIDTH, EMOTIONS = 16, 4


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


class Case:
    """Clips around four directions, a head that knows them, and sounds that lie far away."""

    def __init__(self, scale: float = 8.0) -> None:
        rng = np.random.default_rng(0)
        self.centres = 2 * unit(rng.standard_normal((EMOTIONS, WIDTH)))
        self.head = Head(
            mean=np.zeros(WIDTH, np.float32),
            deviation=np.ones(WIDTH, np.float32),
            weight=np.eye(WIDTH, dtype=np.float32),
            bias=np.zeros(WIDTH, np.float32),
            classes=unit(self.centres),
            scale=np.float32(scale),
        )
        emotion = np.arange(200) % EMOTIONS
        features = (self.centres[emotion] + rng.standard_normal((200, WIDTH))).astype(np.float32)
        speakers = tuple(f"s{n}" for n in np.arange(200) // 4 % 10)
        memory = Memory(features, emotion, ("one",) * 200, ("en",) * 200, speakers)
        self.prototypes = Prototypes.of(self.head, memory)
        self.held_out = self.clips(rng, 2_000)
        self.non_speech = (rng.standard_normal((100, WIDTH)) - 9).astype(np.float32)

    def clips(self, rng: np.random.Generator, count: int) -> Labelled:
        truth = rng.integers(0, EMOTIONS, count)
        embedding = self.centres[truth] + rng.standard_normal((count, WIDTH))
        return Labelled(embedding.astype(np.float32), truth, np.arange(count) % 8)

    def calibrated(self, held_out: Labelled | None = None):
        return calibrate(self.head, self.prototypes, held_out or self.held_out, self.non_speech)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_a_boastful_network_is_calmed(case: Case) -> None:
    boastful = Case(scale=40.0)
    calm, loud = case.calibrated(), boastful.calibrated()
    assert loud.temperature / calm.temperature == pytest.approx(5.0, rel=0.1)
    fresh = case.clips(np.random.default_rng(5), 4_000)
    found = answer(fresh.embedding, boastful.head, boastful.prototypes, loud).probabilities
    error = expected_calibration_error(found.argmax(1) == fresh.truth, found.max(1))
    assert error < 0.04
    plain = loud.model_copy(update={"vote_weight": 0.0})
    before = answer(fresh.embedding, boastful.head, boastful.prototypes, plain).probabilities
    loss = negative_log_likelihood(found, fresh.truth)
    assert loss <= negative_log_likelihood(before, fresh.truth) + 0.01


def test_it_abstains_on_the_least_certain(case: Case) -> None:
    decision = case.calibrated()
    found = answer(case.held_out.embedding, case.head, case.prototypes, decision)
    share = np.mean(found.probabilities.max(1) < decision.low_confidence)
    assert share == pytest.approx(0.05, abs=0.005)


def test_non_speech_is_farther_out_than_speech(case: Case) -> None:
    decision = case.calibrated()
    assert decision.out_of_domain >= 0.5
    known = answer(case.held_out.embedding, case.head, case.prototypes, decision).out_of_domain
    far = answer(case.non_speech, case.head, case.prototypes, decision).out_of_domain
    assert np.mean(known > decision.out_of_domain) <= 0.0101
    assert np.median(far) > 0.9 > 0.1 > np.median(known)


def test_a_speakers_answers_do_not_depend_on_his_own_labels(case: Case) -> None:
    rng = np.random.default_rng(7)
    recorded = case.clips(rng, 240)
    held_out = Labelled(
        np.tile(recorded.embedding, (2, 1)), np.tile(recorded.truth, 2), np.tile(recorded.group, 2)
    )
    arguments = (case.head, case.prototypes)
    first, withheld = cross_fit(*arguments, held_out, case.non_speech, recorded)
    assert first.probabilities.shape == (240, EMOTIONS)
    assert withheld.shape == (240,)
    for speaker in (0, 5):
        own = held_out.group == speaker
        wrong = np.where(own, (held_out.truth + 1) % EMOTIONS, held_out.truth)
        again, hidden = cross_fit(
            *arguments, replace(held_out, truth=wrong), case.non_speech, recorded
        )
        mine = recorded.group == speaker
        np.testing.assert_array_equal(again.probabilities[mine], first.probabilities[mine])
        np.testing.assert_array_equal(hidden[mine], withheld[mine])
        assert not np.array_equal(again.probabilities, first.probabilities)


def test_cross_fitting_keeps_the_order_of_the_clips(case: Case) -> None:
    recorded = case.clips(np.random.default_rng(7), 60)
    found, _ = cross_fit(case.head, case.prototypes, recorded, case.non_speech, recorded)
    np.testing.assert_array_equal(found.embedding, recorded.embedding)
    expected = case.head.classify(case.head.project(recorded.embedding))
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)


def test_one_speaker_alone_is_answered_by_a_fit_on_himself(case: Case) -> None:
    recorded = replace(case.clips(np.random.default_rng(7), 40), group=np.zeros(40, np.int64))
    found, _ = cross_fit(case.head, case.prototypes, recorded, case.non_speech, recorded)
    decision = case.calibrated(recorded)
    expected = answer(recorded.embedding, case.head, case.prototypes, decision)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_the_logistic_curve_is_finite_where_the_sides_do_not_meet() -> None:
    near, far = np.array([-1.0, -1.1], np.float32), np.array([-9.0, -8.0, -9.5], np.float32)
    slope, midpoint = _fit_logistic(near, far)
    assert 0 < slope < 100
    assert -8 < midpoint < -1.1
    assert _fit_logistic(far, near)[0] == 1e-3  # the wrong way round: as flat as is allowed
