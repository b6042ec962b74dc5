"""One trial: adapt by one method to one case, judge, answer, score; with time and memory."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...service.inference.bundle import Memory
from ...service.inference.card import CORE_EMOTIONS, Decision
from ...service.inference.first_generation import MemoryIndex
from ...service.inference.graphs import softmax
from .. import evaluation as metrics
from ..adaptation.config import AdaptConfig
from ..adaptation.decision import adapt_decision
from ..adaptation.evidence import collect_evidence
from ..adaptation.head import AdaptedHead, Target
from ..adaptation.report import Evidence
from ..adaptation.train import adapt_head
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
    """

    probabilities: Floats
    projection: Floats
    out_of_domain: NDArray[np.bool_]


@torch.no_grad()
def answer(base: Base, head: AdaptedHead, decision: Decision, pooled: Tensor) -> Answers:
    """Answer clips by their pooled features ``(clips, D)``."""
    known = torch.from_numpy(base.memory.features)
    projection = head.project_target(pooled)
    logits = head.classify(projection).numpy()
    # the memory of the bundle that would be published
    memory = Memory(
        head.align(known).numpy(), base.memory.emotion, base.memory.corpus, base.memory.language
    )
    neighbourhood = MemoryIndex(
        memory, head.project_source(known).numpy(), decision, base.network.labels
    )
    bias = np.array(decision.logit_bias or 0.0, np.float32)
    probabilities = softmax(np.asarray(logits / decision.temperature, np.float32) + bias)
    if decision.vote_weight > 0:
        vote = neighbourhood.vote(projection.numpy())
        weight = np.float32(decision.vote_weight)
        probabilities = (1 - weight) * probabilities + weight * vote
    far = neighbourhood.out_of_domain(pooled.numpy()) > decision.out_of_domain
    return Answers(probabilities, projection.numpy(), far)


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
    low_confidence: float,
) -> list[Verdict]:
    core = [labels.index(emotion) for emotion in CORE_EMOTIONS]
    scores = answers.probabilities[:, core] + np.float32(1e-12)
    scores = scores / scores.sum(1, keepdims=True)
    confidence = scores.max(1)
    abstains = (confidence < low_confidence) | answers.out_of_domain
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
    pooled: Tensor

    def target(self, part: Part, num_views: int) -> Target:
        """What a method gets of a part: features, no labels."""
        clips = self.pooled[: 1 + num_views, torch.from_numpy(part.adapt)]
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
    labels, sure = base.network.labels, base.decision.low_confidence
    answers = _join([outcome.answers for outcome in outcomes])
    figures = score(utterances, answers, labels, sure)
    gated = score(utterances, _join([outcome.gated for outcome in outcomes]), labels, sure)
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
    target, head = subject.target(part, config.views), base.network.head
    with watch_memory() as use:
        start = time.perf_counter()
        adapted = adapt_head(head, base.source, target, method, config, seed)
        seconds = time.perf_counter() - start
    evidence = collect_evidence(head, adapted, base.source, target, base.network.labels)
    decision = adapt_decision(
        base.decision, adapted, base.source, target, base.network.labels, evidence, config
    )
    clips = subject.pooled[0, torch.from_numpy(part.score)]
    answers = gated = answer(base, adapted, decision, clips)
    if evidence.verdict == "reject":
        unmoved = AdaptedHead(head, target, target_statistics=0.0).eval()
        gated = answer(base, unmoved, base.decision, clips)
    return _Outcome(evidence, answers, gated, seconds, use)


def _join(parts: Sequence[Answers]) -> Answers:
    if len(parts) == 1:
        return parts[0]
    return Answers(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.projection for part in parts]),
        np.concatenate([part.out_of_domain for part in parts]),
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
