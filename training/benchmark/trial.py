"""One trial: adapt by one method to one case, as ``nnpm adapt`` does, answer as served, score."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...service.inference.card import CORE_EMOTIONS, Decision
from ...service.inference.head import Head
from .. import evaluation as metrics
from ..adaptation.config import AdaptConfig
from ..adaptation.decision import Served
from ..adaptation.outcome import Base, adapt_target
from ..corpora import Utterance
from .cases import Case
from .features import Subject

POSITIVE = ("happy", "neutral", "calm", "surprise")
"""Emotions of positive valence; the others are negative."""

COMPARED = ("wa", "uar", "ece", "answered", "right", "accuracy_answered")
"""Figures that a row also has of the base, and of the gated answers."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers to the scored clips.

    Attributes:
        forced: among the four emotions.
        served: among all that the bundle knows, as ``nnpm serve`` answers without options.
    """

    forced: Served
    served: Served


def run_trial(
    base: Base, subject: Subject, case: Case, method: str, config: AdaptConfig, seed: int
) -> dict[str, Any]:
    """Adapt and score.

    Args:
        base: the bundle.
        subject: the target.
        case: which of its clips.
        method: by name.
        config: of the adaptation.
        seed: of its draws.

    Returns:
        The figures of :func:`score`; some of them of the base as ``base``, and as ``gated``, where
        the base answers if the verdict is reject; verdict, evidence, estimated accuracy; seconds
        of the adaptation; a map of the scored clips' z in the plane.
    """
    before, after, gated, evidence = [], [], [], []
    seconds = 0.0
    for part in case.parts:
        target = subject.target(part, config.views, base.labels)
        start = time.perf_counter()
        outcome = adapt_target(base, target, method, config, seed)
        seconds += time.perf_counter() - start
        evidence.append(outcome.evidence)
        before.append(answer(base, base.head, base.decision, subject, part.score))
        after.append(answer(base, outcome.head, outcome.decision, subject, part.score))
        gated.append(before[-1] if outcome.evidence.verdict == "reject" else after[-1])
    places = np.concatenate([part.score for part in case.parts])
    utterances = [subject.utterances[place] for place in places]
    figures = score(utterances, after, base.labels)
    compared = {"base": before, "gated": gated}
    estimates = [e.estimated_accuracy for e in evidence if e.estimated_accuracy is not None]
    return {
        **figures,
        **{
            name: {key: score(utterances, answers, base.labels)[key] for key in COMPARED}
            for name, answers in compared.items()
        },
        "adapted_clips": [len(part.adapt) for part in case.parts],
        "verdict": [one.verdict for one in evidence],
        "reasons": [one.reasons for one in evidence],
        "evidence": [one.figures for one in evidence],
        "estimated": float(np.mean([one.value for one in estimates])) if estimates else None,
        "estimated_error": float(np.mean([one.error for one in estimates])) if estimates else None,
        "seconds": round(seconds, 3),
        "map": _plane(outcome.head, subject, places) if len(case.parts) == 1 and not seed else None,
    }


def answer(
    base: Base, head: Head, decision: Decision, subject: Subject, places: NDArray[np.int64]
) -> Answers:
    """Answer some clips of a subject; those without speech are not answered."""
    pooled = subject.pooled[0, places]
    core = tuple(base.labels.index(emotion) for emotion in CORE_EMOTIONS)
    found = [base.serve(pooled, head, decision, occurs) for occurs in (core, ())]
    speech = subject.has_speech[places]
    forced, served = (Served(one.probabilities, one.answered & speech) for one in found)
    return Answers(forced, served)


def score(
    utterances: Sequence[Utterance], parts: Sequence[Answers], labels: tuple[str, ...]
) -> dict[str, Any]:
    """Compute the figures of answers.

    Args:
        utterances: the clips, of the core emotions.
        parts: answers to them, in order.
        labels: of the bundle.

    Returns:
        WA, UAR, macro F1, ECE, recall by emotion, confusion (also by speaker) among the four
        emotions, with an answer forced on every clip; as served, where the bundle abstains and any
        emotion may be answered: the share answered, how many clips are answered right, and the
        accuracy of the answered (None if there are none); WA and UAR of the valence.
    """
    core = np.array([labels.index(emotion) for emotion in CORE_EMOTIONS])
    truth = np.array([labels.index(u.emotion) for u in utterances])
    forced = np.concatenate([part.forced.answers for part in parts])
    confidence = np.concatenate([part.forced.confidence for part in parts])
    served = np.concatenate([part.served.answers for part in parts])
    answered = np.concatenate([part.served.answered for part in parts])
    probabilities = np.concatenate([part.served.probabilities for part in parts])
    positive = np.array([label in POSITIVE for label in labels])
    valence = (probabilities[:, positive].sum(1) > 0.5).astype(np.int64)
    true_valence = positive[truth].astype(np.int64)
    right = int((answered & (served == truth)).sum())

    def confusion(chosen: NDArray[np.bool_]) -> list[list[int]]:
        counts = metrics.confusion_matrix(truth[chosen], forced[chosen], len(labels))
        table: list[list[int]] = counts[np.ix_(core, core)].tolist()
        return table

    speakers = np.array([u.speaker for u in utterances])
    return {
        "clips": len(truth),
        "wa": metrics.accuracy(truth, forced),
        "uar": metrics.unweighted_average_recall(truth, forced),
        "macro_f1": metrics.macro_f1(truth, forced),
        "ece": metrics.expected_calibration_error(truth == forced, confidence),
        "recall": {labels[i]: value for i, value in metrics.recalls(truth, forced).items()},
        "answered": float(answered.mean()),
        "right": right,
        "accuracy_answered": right / int(answered.sum()) if answered.any() else None,
        "valence_wa": metrics.accuracy(true_valence, valence),
        "valence_uar": metrics.unweighted_average_recall(true_valence, valence),
        "confusion": confusion(np.ones(len(truth), np.bool_)),
        "speakers": {name: confusion(speakers == name) for name in np.unique(speakers).tolist()},
    }


_DOTS = 400


def _plane(head: Head, subject: Subject, places: NDArray[np.int64]) -> dict[str, Any]:
    """The first two principal components of z, of up to 400 clips."""
    chosen = places[np.linspace(0, len(places) - 1, min(_DOTS, len(places))).round().astype(int)]
    projection = head.project(head.standardise(subject.pooled[0, chosen]))
    centred = projection - projection.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2].sum(1, keepdims=True) + 1e-12)  # the sign is arbitrary
    return {
        "points": (centred @ axes.T).round(3).tolist(),
        "emotion": [subject.utterances[place].emotion for place in chosen],
    }
