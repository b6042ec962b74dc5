import numpy as np
import pytest
from sklearn import metrics as reference

from nnpm.training import evaluation as metrics


@pytest.fixture
def answers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    return truth, np.where(rng.random(300) < 0.6, truth, rng.integers(0, 4, 300))


def test_figures_are_scikit_learns(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = answers
    assert metrics.accuracy(truth, prediction) == pytest.approx(
        reference.accuracy_score(truth, prediction)
    )
    assert metrics.unweighted_average_recall(truth, prediction) == pytest.approx(
        reference.balanced_accuracy_score(truth, prediction)
    )
    assert metrics.macro_f1(truth, prediction) == pytest.approx(
        reference.f1_score(truth, prediction, average="macro")
    )
    np.testing.assert_array_equal(
        metrics.confusion_matrix(truth, prediction, 4),
        reference.confusion_matrix(truth, prediction),
    )


def test_calibration_error_of_a_calibrated_and_of_a_boasting_model(
    rng: np.random.Generator,
) -> None:
    confidence = rng.uniform(0.25, 1.0, 50_000)
    correct = rng.random(50_000) < confidence
    assert metrics.expected_calibration_error(correct, confidence) < 0.01
    boasting = metrics.expected_calibration_error(correct, np.ones(50_000))
    assert boasting == pytest.approx(1 - correct.mean())
