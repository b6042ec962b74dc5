"""One method on one case: adapt, judge, answer, score."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.adaptation.adapter import adapt_head
from training.adaptation.config import AdaptConfig
from training.adaptation.decision import decide
from training.adaptation.evidence import judge
from training.adaptation.head import AdaptedHead
from training.adaptation.material import Target
from training.adaptation.report import Evidence
from training.benchmark.answers import Answers, answer
from training.benchmark.base import Base
from training.benchmark.cases import Case, Part
from training.benchmark.memory_use import Use, watch_memory
from training.benchmark.score import score
from training.corpora import Utterance


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A target corpus as one network hears it.

    Attributes:
        utterances: all clips, with labels for the score.
        heard: shape ``(1 + views, clips, D)``.
    """

    utterances: Sequence[Utterance]
    heard: Tensor

    def target(self, part: Part, num_views: int) -> Target:
        """What a method sees of a part."""
        clips = self.heard[: 1 + num_views, torch.from_numpy(part.adapt)]
        return Target(clips[0], clips[1:])


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    evidence: Evidence
    answers: Answers
    gated: Answers
    seconds: float
    use: Use


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
        The figures of :func:`training.benchmark.score.score`; the same, gated, as ``gated``: where
        the evidence says reject, the base answers; verdict, evidence, estimated accuracy; seconds
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
    told = [estimate for estimate in estimates if estimate is not None]
    return {
        **figures,
        "gated": {name: gated[name] for name in ("wa", "uar", "macro_f1", "ece")},
        "adapted_clips": [len(part.adapt) for part in case.parts],
        "verdict": [outcome.evidence.verdict for outcome in outcomes],
        "reasons": [outcome.evidence.reasons for outcome in outcomes],
        "evidence": [outcome.evidence.figures for outcome in outcomes],
        "estimated": float(np.mean([e.value for e in told])) if told else None,
        "estimated_error": float(np.mean([e.error for e in told])) if told else None,
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
    evidence = judge(head, adapted, base.source, target, base.network.labels)
    decision = decide(
        base.decision, adapted, base.source, target, base.network.labels, evidence, config
    )
    scored = subject.heard[0, torch.from_numpy(part.score)]
    answers = gated = answer(base, adapted, decision, scored)
    if evidence.verdict == "reject":
        unmoved = AdaptedHead(head, target, target_statistics=0.0).eval()
        gated = answer(base, unmoved, base.decision, scored)
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
