"""Figures of merit, in numpy."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


def confusion_matrix(truth: Ints, prediction: Ints, num_classes: int) -> Ints:
    """Count clips by truth (rows) and prediction (columns).

    Examples:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    pairs = np.asarray(truth) * num_classes + np.asarray(prediction)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(truth: Ints, prediction: Ints) -> float:
    """Share of clips answered right: the paper's WA."""
    return float(np.mean(np.asarray(truth) == np.asarray(prediction)))


def recalls(truth: Ints, prediction: Ints) -> dict[int, float]:
    """Recall of each class that occurs in ``truth``."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    return {int(c): float(np.mean(prediction[truth == c] == c)) for c in np.unique(truth)}


def unweighted_average_recall(truth: Ints, prediction: Ints) -> float:
    """Mean recall over the classes that occur in ``truth`` (UAR).

    Examples:
        >>> unweighted_average_recall(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
        0.5
    """
    return float(np.mean(list(recalls(truth, prediction).values())))


def macro_f1(truth: Ints, prediction: Ints) -> float:
    """Mean F1 over the classes that occur in ``truth``.

    Examples:
        >>> macro_f1(np.array([0, 0, 1]), np.array([0, 2, 1])).__round__(3)
        0.833
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    scores = []
    for label in np.unique(truth):
        hits = np.sum((truth == label) & (prediction == label))
        scores.append(2.0 * hits / (np.sum(truth == label) + np.sum(prediction == label)))
    return float(np.mean(scores))


def expected_calibration_error(
    correct: NDArray[np.bool_], confidence: Floats, num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by clips (ECE).

    References:
        Guo et al., *On Calibration of Modern Neural Networks*, arXiv 1706.04599.

    Args:
        correct: shape ``(clips,)``.
        confidence: in [0, 1], shape ``(clips,)``.
        num_bins: bins over [0, 1].

    Examples:
        >>> expected_calibration_error(np.array([True, False]), np.array([0.9, 0.9]))
        0.4
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gap = 0.0
    for index in np.unique(bins):
        inside = bins == index
        gap += inside.mean() * abs(np.mean(correct[inside]) - confidence[inside].mean())
    return round(float(gap), 12)
