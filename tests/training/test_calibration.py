import numpy as np
import pytest

from nnpm.service.inference.bundle import Memory
from nnpm.service.inference.first_generation import MemoryIndex
from nnpm.service.inference.graphs import softmax
from nnpm.training.bundle.calibration import Scores, calibrate
from nnpm.training.evaluation import expected_calibration_error

LABELS = ("angry", "happy", "neutral", "sad")


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def case(rng: np.random.Generator) -> tuple[Memory, np.ndarray, Scores, np.ndarray]:
    """A memory in four clusters, boastful logits for new clips of them, and far-off sounds."""
    centres = rng.standard_normal((4, 16))
    emotion = np.arange(200) % 4
    features = (centres[emotion] + rng.standard_normal((200, 16))).astype(np.float32)
    memory = Memory(features, emotion, ("one",) * 200, ("en",) * 200)
    truth = rng.integers(0, 4, 2_000)
    embedding = (centres[truth] + 2 * rng.standard_normal((2_000, 16))).astype(np.float32)
    honest = -((embedding[:, None] - centres) ** 2).sum(2) / 8
    scores = Scores((3 * honest).astype(np.float32), embedding, unit(embedding), truth)
    non_speech = (rng.standard_normal((100, 16)) * 2 - 12).astype(np.float32)
    return memory, unit(features), scores, non_speech


def test_a_boastful_network_is_calmed(case) -> None:
    memory, slots, scores, non_speech = case
    decision = calibrate(memory, slots, LABELS, scores, non_speech)
    assert decision.temperature == pytest.approx(3.0, rel=0.15)
    index = MemoryIndex(memory, slots, decision, LABELS)
    weight = decision.vote_weight
    probabilities = (1 - weight) * softmax(scores.logits / decision.temperature)
    probabilities += weight * index.vote(scores.projection)
    correct = probabilities.argmax(1) == scores.truth
    assert expected_calibration_error(correct, probabilities.max(1)) < 0.04
    assert np.mean(probabilities.max(1) < decision.low_confidence) == pytest.approx(0.05, abs=0.005)


def test_non_speech_is_farther_out_than_speech(case) -> None:
    memory, slots, scores, non_speech = case
    decision = calibrate(memory, slots, LABELS, scores, non_speech)
    index = MemoryIndex(memory, slots, decision, LABELS)
    known = index.out_of_domain(scores.embedding)
    assert np.mean(known > decision.out_of_domain) <= 0.0101
    assert np.median(index.out_of_domain(non_speech)) > np.median(known)
