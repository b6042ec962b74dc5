"""Figures of one head on labelled clips: forced answers among the core emotions, and valence."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.inference.labels import CORE_EMOTIONS
from training import metrics
from training.benchmark.answers import Answers
from training.corpora import Utterance
from training.evaluation import Verdict, report

POSITIVE = ("calm", "happy", "neutral", "surprise")
"""Of the valence table; all other emotions are negative."""

FIGURES = ("wa", "uar", "macro_f1", "ece", "coverage", "wa_answered")
"""Taken from the report of ``nnpm evaluate``."""


def score(
    utterances: Sequence[Utterance],
    answers: Answers,
    labels: tuple[str, ...],
    low_confidence: float,
) -> dict[str, Any]:
    """Score clips of the core emotions.

    Args:
        utterances: the clips.
        answers: for these clips.
        labels: emotions in the order of the probabilities.
        low_confidence: the service abstains below it.

    Returns:
        :data:`FIGURES`; ``wa_open``, the accuracy where any emotion may be answered; ``recall`` by
        emotion; ``valence_wa`` and ``valence_uar``; ``confusion`` among the core emotions, whole
        and by speaker.
    """
    verdicts = _verdicts(utterances, answers, labels, low_confidence)
    told = report(verdicts, CORE_EMOTIONS)
    truth = [u.emotion for u in utterances]
    openly = [labels[place] for place in answers.probabilities.argmax(1)]
    positive = np.isin(labels, POSITIVE)
    feeling = answers.probabilities[:, positive].sum(1) > answers.probabilities[:, ~positive].sum(1)
    felt = np.isin(truth, POSITIVE).astype(np.int64)
    return {
        **{name: told[name] for name in FIGURES},
        "clips": len(utterances),
        "wa_open": float(np.mean(np.array(truth) == np.array(openly))),
        "recall": {emotion: row["recall"] for emotion, row in told["per_class"].items()},
        "valence_wa": metrics.accuracy(felt, feeling.astype(np.int64)),
        "valence_uar": metrics.unweighted_average_recall(felt, feeling.astype(np.int64)),
        "confusion": told["confusion"],
        "speakers": _by_speaker(verdicts),
    }


def _verdicts(
    utterances: Sequence[Utterance],
    answers: Answers,
    labels: tuple[str, ...],
    low_confidence: float,
) -> list[Verdict]:
    core = [labels.index(emotion) for emotion in CORE_EMOTIONS]
    chances = answers.probabilities[:, core] + np.float32(1e-12)
    chances = chances / chances.sum(1, keepdims=True)
    confidence = chances.max(1)
    abstains = (confidence < low_confidence) | answers.out_of_domain
    return [
        Verdict(utterance, CORE_EMOTIONS[best], float(sure), {}, abstained=bool(unsure))
        for utterance, best, sure, unsure in zip(
            utterances, chances.argmax(1), confidence, abstains, strict=True
        )
    ]


def _by_speaker(verdicts: Sequence[Verdict]) -> dict[str, list[list[int]]]:
    size = len(CORE_EMOTIONS)
    found: dict[str, list[list[int]]] = {}
    for verdict in verdicts:
        rows = found.setdefault(verdict.utterance.speaker, [[0] * size for _ in range(size)])
        assert verdict.prediction is not None
        truth = CORE_EMOTIONS.index(verdict.utterance.emotion)
        rows[truth][CORE_EMOTIONS.index(verdict.prediction)] += 1
    return found
