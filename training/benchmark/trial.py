"""One trial: adapt by one method to one case, judge, answer, score; with time and memory."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...service.inference.card import CORE_EMOTIONS, Decision
from ...service.inference.head import Head
from .. import evaluation as metrics
from ..adaptation.config import AdaptConfig
from ..adaptation.decision import adapt_decision, serve
from ..adaptation.evidence import collect_evidence
from ..adaptation.head import Source, Target
from ..adaptation.report import Evidence
from ..adaptation.train import adapt_head
from ..bundle.prototypes import Prototypes
from ..bundle.prototypes import answer as answer_in_numpy
from ..corpora import Utterance
from ..evaluation import Verdict, report
from .cases import Case, Part
from .networks import Base

_PROCESS = Path("/proc/self")
_MIB = 1024.0


@dataclass(slots=True)
class MemoryUse:
    """Memory of a piece of work; None where the system is not Linux.

    Attributes:
        rise_mib: peak of the resident set over what it was before. What the process had freed
            before and takes again does not show.
        peak_mib: peak of the resident set, with Python, torch and the features.
    """

    rise_mib: float | None = None
    peak_mib: float | None = None


@contextmanager
def watch_memory() -> Iterator[MemoryUse]:
    """Measure the block by the kernel's own peak (VmHWM), reset at the start."""
    use, before = MemoryUse(), None
    try:
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak to what is there
        before = _read("VmRSS")
    except OSError:
        pass
    yield use
    if before is not None:
        use.peak_mib = round(_read("VmHWM") / _MIB, 1)
        use.rise_mib = round(max(0.0, use.peak_mib - before / _MIB), 1)


def _read(name: str) -> float:
    """In KiB."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])


Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Of some clips.

    Attributes:
        probabilities: shape ``(clips, emotions)``.
        projection: z, shape ``(clips, projection)``.
        out_of_domain: whether a clip lies too far from all that the memory knows.
        low_confidence: below it the model abstains, shape ``(clips,)``.
    """

    probabilities: Floats
    projection: Floats
    out_of_domain: NDArray[np.bool_]
    low_confidence: Floats


def answer(base: Base, head: Head, decision: Decision, pooled: Floats) -> Answers:
    """Answer clips by their pooled features ``(clips, D)``, as a bundle of this head would."""
    found = answer_in_numpy(pooled, head, Prototypes.of(head, base.memory), decision)
    projection = head.project(head.standardise(pooled))
    far = found.out_of_domain > decision.out_of_domain
    least = np.full(len(far), decision.low_confidence, np.float32)
    return Answers(found.probabilities, projection, far, least)


POSITIVE = ("calm", "happy", "neutral", "surprise")
"""Of the valence table; all other emotions are negative."""

FIGURES = ("wa", "uar", "macro_f1", "ece", "coverage", "wa_answered")
"""Taken from the report of ``nnpm evaluate``."""


def score(
    utterances: Sequence[Utterance],
    answers: Answers,
    labels: tuple[str, ...],
) -> dict[str, Any]:
    """Score clips of the core emotions.

    Args:
        utterances: the clips.
        answers: for these clips.
        labels: emotions in the order of the probabilities.

    Returns:
        :data:`FIGURES`; ``wa_open``, the accuracy where any emotion may be answered; ``recall`` by
        emotion; ``valence_wa`` and ``valence_uar``; ``confusion`` among the core emotions, whole
        and by speaker.
    """
    verdicts = _verdicts(utterances, answers, labels)
    overall = report(verdicts, CORE_EMOTIONS)
    truth = [u.emotion for u in utterances]
    open_answers = [labels[place] for place in answers.probabilities.argmax(1)]
    positive = np.isin(labels, POSITIVE)
    valence = answers.probabilities[:, positive].sum(1) > answers.probabilities[:, ~positive].sum(1)
    true_valence = np.isin(truth, POSITIVE).astype(np.int64)
    return {
        **{name: overall[name] for name in FIGURES},
        "clips": len(utterances),
        "wa_open": float(np.mean(np.array(truth) == np.array(open_answers))),
        "recall": {emotion: row["recall"] for emotion, row in overall["per_class"].items()},
        "valence_wa": metrics.accuracy(true_valence, valence.astype(np.int64)),
        "valence_uar": metrics.unweighted_average_recall(true_valence, valence.astype(np.int64)),
        "confusion": overall["confusion"],
        "speakers": _by_speaker(verdicts),
    }


def _verdicts(
    utterances: Sequence[Utterance],
    answers: Answers,
    labels: tuple[str, ...],
) -> list[Verdict]:
    core = [labels.index(emotion) for emotion in CORE_EMOTIONS]
    scores = answers.probabilities[:, core] + np.float32(1e-12)
    scores = scores / scores.sum(1, keepdims=True)
    confidence = scores.max(1)
    abstains = (confidence < answers.low_confidence) | answers.out_of_domain
    return [
        Verdict(utterance, CORE_EMOTIONS[best], float(sure), {}, abstained=bool(abstains_here))
        for utterance, best, sure, abstains_here in zip(
            utterances, scores.argmax(1), confidence, abstains, strict=True
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


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A target corpus in the features of one network.

    Attributes:
        utterances: all clips, with labels for the score.
        pooled: shape ``(1 + views, clips, D)``; the first view is the clip itself.
    """

    utterances: Sequence[Utterance]
    pooled: Floats

    def target(self, part: Part, num_views: int) -> Target:
        """What a method gets of a part: features, no labels."""
        clips = self.pooled[: 1 + num_views, part.adapt]
        return Target(clips[0], clips[1:])


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    evidence: Evidence
    answers: Answers
    gated: Answers
    seconds: float
    use: MemoryUse


def run_trial(
    base: Base, subject: Subject, case: Case, method: str, config: AdaptConfig, seed: int
) -> dict[str, Any]:
    """Adapt and score.

    Args:
        base: the source network.
        subject: the target.
        case: which of its clips.
        method: by name.
        config: of the adaptation.
        seed: of its draws.

    Returns:
        The figures of :func:`score`; the same as ``gated``, where the base answers if the
        evidence says reject; verdict, evidence, estimated accuracy; seconds
        and memory of the adaptation; a map of the scored clips' z in the plane.
    """
    outcomes = [_adapt(base, subject, part, method, config, seed) for part in case.parts]
    places = np.concatenate([part.score for part in case.parts])
    utterances = [subject.utterances[place] for place in places]
    labels = base.labels
    answers = _join([outcome.answers for outcome in outcomes])
    figures = score(utterances, answers, labels)
    gated = score(utterances, _join([outcome.gated for outcome in outcomes]), labels)
    estimates = [o.evidence.estimated_accuracy for o in outcomes]
    made = [estimate for estimate in estimates if estimate is not None]
    return {
        **figures,
        "gated": {name: gated[name] for name in ("wa", "uar", "macro_f1", "ece")},
        "adapted_clips": [len(part.adapt) for part in case.parts],
        "verdict": [outcome.evidence.verdict for outcome in outcomes],
        "reasons": [outcome.evidence.reasons for outcome in outcomes],
        "evidence": [outcome.evidence.figures for outcome in outcomes],
        "estimated": float(np.mean([e.value for e in made])) if made else None,
        "estimated_error": float(np.mean([e.error for e in made])) if made else None,
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
        "rise_mib": _most([outcome.use.rise_mib for outcome in outcomes]),
        "peak_mib": _most([outcome.use.peak_mib for outcome in outcomes]),
        "map": _plane(answers, utterances) if len(outcomes) == 1 and seed == 0 else None,
    }


def _adapt(
    base: Base, subject: Subject, part: Part, method: str, config: AdaptConfig, seed: int
) -> _Outcome:
    target, head, labels = subject.target(part, config.views), base.head, base.labels
    source, temperature = (
        Source.from_memory(base.memory, config.most_slots),
        base.decision.temperature,
    )
    with watch_memory() as use:
        start = time.perf_counter()
        adapted = adapt_head(head, source, target, method, config, seed, temperature=temperature)
        seconds = time.perf_counter() - start
    evidence = collect_evidence(head, adapted, source, target, labels, temperature=temperature)
    expected = evidence.estimated_accuracy
    decision = adapt_decision(
        base.decision,
        serve(target.pooled, head, Prototypes.of(head, base.memory), base.decision),
        adapted,
        Prototypes.of(adapted, base.memory),
        target,
        prior=None if adapted is head else config.prior,
        accuracy=expected.value if expected and config.calibrate else None,
    )
    clips = subject.pooled[0, part.score]
    answers = gated = answer(base, adapted, decision, clips)
    if evidence.verdict == "reject":
        gated = answer(base, head, base.decision, clips)
    return _Outcome(evidence, answers, gated, seconds, use)


def _join(parts: Sequence[Answers]) -> Answers:
    if len(parts) == 1:
        return parts[0]
    return Answers(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.projection for part in parts]),
        np.concatenate([part.out_of_domain for part in parts]),
        np.concatenate([part.low_confidence for part in parts]),
    )


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


_DOTS = 400


def _plane(answers: Answers, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """The first two principal components of z, of up to 400 clips."""
    chosen = np.linspace(0, len(utterances) - 1, min(_DOTS, len(utterances))).round().astype(int)
    centred = answers.projection[chosen] - answers.projection[chosen].mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2].sum(1, keepdims=True) + 1e-12)  # the sign is arbitrary
    return {
        "points": (centred @ axes.T).round(3).tolist(),
        "emotion": [utterances[place].emotion for place in chosen],
    }
