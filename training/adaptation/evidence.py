"""Evidence without labels: the verdict on an adapted head, and an estimate of its accuracy."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...service.inference.card import CORE_EMOTIONS
from ...service.inference.head import Head
from .head import Floats, Ints, Source, Target, evenly
from .methods.method import softmax
from .methods.neighbours import vote
from .report import Estimate, Evidence, Verdict

_FITTED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "configs" / "estimator.json").read_text("utf-8")
)
"""Lines and thresholds that ``nnpm benchmark --tables estimator`` fits on development sets:
coefficients by figure (the intercept has no name) of the accuracy and of its gain, the mean
absolute error on corpora left out, and between which gains a model is neither better nor worse."""

_LEAST_KEPT = 0.9
"""Minimum accuracy on the source, as a share of the old head's."""

_COLLAPSE = 0.9
"""Maximum share of one emotion in the answers on the target."""

_FARTHEST = 1.6
"""Maximum median distance of the clips from the memory, relative to distances within the memory."""

_SAME = 0.01
"""Minimum share of changed answers; below it the verdict is "no change"."""

_VOTE_SLOTS = 20
_DOMAIN_SLOTS = 10
_MOST_SLOTS = 4096
_TAIL = 4.0
_TINY = 1e-6


def collect_evidence(
    old: Head,
    adapted: Head,
    source: Source,
    target: Target,
    labels: tuple[str, ...],
    *,
    temperature: float = 1.0,
) -> Evidence:
    """Compare a head before and after adaptation.

    Args:
        old: before.
        adapted: after, with the target's statistics.
        source: the memory, with labels.
        target: the clips.
        labels: emotions in the order of the logits.
        temperature: of the base's decision.

    Returns:
        The verdict, its reasons, the estimated accuracy, and the figures behind them.
    """
    slots = evenly(source.emotion, _MOST_SLOTS)
    source = Source(source.features[slots], source.emotion[slots], source.speaker[slots])
    columns = list(target.occurs) or core_columns(labels)
    answers_before, before = observe(old, source, target, columns, temperature)
    answers_after, after = observe(adapted, source, target, columns, temperature)
    # training makes a head certain whether it is right or not; its statistics alone do not
    plain = replace(old, mean=adapted.mean, deviation=adapted.deviation)
    before["plain_confidence"] = before["confidence"]
    _, untrained = observe(plain, source, target, columns, temperature)
    after["plain_confidence"] = untrained["confidence"]
    kept = {
        name: _share(head.classify(head.project(source.features)).argmax(1) == source.emotion)
        for name, head in (("before", old), ("after", adapted))
    }
    figures = {
        "source_accuracy_before": kept["before"],
        "source_accuracy_after": kept["after"],
        "answers_changed": _share(answers_before != answers_after),
        "distance_to_memory": _distance(source.features, adapted.standardise(target.pooled)),
        "distance_to_memory_before": _distance(source.features, old.standardise(target.pooled)),
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
    }
    expected_before, expected = estimate(before), estimate(after)
    if expected_before is not None:
        figures["estimated_accuracy_before"] = expected_before.value
    change = {name: after[name] - before[name] for name in after.keys() & before.keys()}
    gain = _on_line("gain", change)
    if gain is not None:
        figures["estimated_gain"] = gain
    verdict, reasons = _verdict(figures, gain)
    return Evidence(verdict=verdict, reasons=reasons, estimated_accuracy=expected, figures=figures)


def observe(
    head: Head, source: Source, target: Target, columns: list[int], temperature: float
) -> tuple[Ints, dict[str, float]]:
    """Compute the answers and the label-free figures of one head.

    Args:
        head: with the statistics that it answers with.
        source: the memory.
        target: the clips.
        columns: emotions that may be answered.
        temperature: of the base's decision.

    Returns:
        Answers as indices of ``columns``, shape ``(clips,)``, and figures in [0, 1]:
        ``confidence``: mean probability of the answer; ``class_confidence``: the same, each answer
        with the same weight; ``nuclear_norm``: of the probabilities, relative to the largest there
        can be; ``memory_agreement``: share of clips to which the memory's vote, centred over the
        target, gives the same answer; ``view_agreement``: share of augmented views with the answer
        of the clip as recorded, missing without views; ``effective_emotions``: how many emotions
        the answers spread over, relative to all; ``largest_share``: of one answer.

    References:
        Confidence: Guillory et al. (DoC), arXiv 2107.03315, by class as Li et al. (arXiv
        2207.09957). Nuclear norm: Deng et al., arXiv 2302.01094. Agreement: Jiang et al., arXiv
        2106.13799, where networks differ; here the views of a clip, or classifier and memory.
    """
    projection = head.project(head.standardise(target.pooled))
    logits = head.classify(projection)[:, columns] / np.float32(temperature)
    probabilities = softmax(logits)
    answers = probabilities.argmax(1)
    sure = probabilities.max(1)
    counts = np.bincount(answers, minlength=len(columns))
    slots = head.project(source.features)
    votes = vote(projection, slots, source.emotion, len(head.classes), _VOTE_SLOTS)[:, columns]
    mean = probabilities.mean(0)
    spread = float(np.exp(-(mean * np.log(np.maximum(mean, _TINY))).sum()))
    singular = np.linalg.svd(probabilities, compute_uv=False).sum()
    largest = np.sqrt(min(probabilities.shape) * len(probabilities))
    figures = {
        "confidence": float(sure.mean()),
        "class_confidence": float(
            np.mean([sure[answers == one].mean() for one in np.flatnonzero(counts)])
        ),
        "nuclear_norm": float(singular / largest),
        "memory_agreement": _share((votes - votes.mean(0)).argmax(1) == answers),
        "effective_emotions": spread / len(columns),
        "largest_share": float(counts.max()) / len(answers),
    }
    if len(target.views):
        seen = [head.classify(head.project(head.standardise(v)))[:, columns] for v in target.views]
        figures["view_agreement"] = _share(np.stack(seen).argmax(2) == answers)
    return answers, figures


def _verdict(figures: dict[str, float], gain: float | None) -> tuple[Verdict, tuple[str, ...]]:
    against = []
    distance = figures["distance_to_memory_before"]
    if distance > _FARTHEST:
        against.append(
            f"The clips do not resemble the speech that the base was trained on: their median "
            f"distance from the memory is {distance:.2f} times the distance within the memory; "
            f"at most {_FARTHEST:g} is accepted."
        )
    before, after = figures["source_accuracy_before"], figures["source_accuracy_after"]
    if after < _LEAST_KEPT * before:
        against.append(
            f"Accuracy on the source falls from {before:.3f} to {after:.3f}; "
            f"at least {_LEAST_KEPT * before:.3f} is required."
        )
    share = figures["largest_share_after"]
    if share > _COLLAPSE:
        against.append(
            f"{share:.0%} of the clips get the same emotion; at most {_COLLAPSE:.0%} is accepted."
        )
    changed = figures["answers_changed"] >= _SAME
    if changed and gain is not None and gain < _FITTED["reject_below"]:
        against.append(
            f"The estimated accuracy changes by {gain:+.3f}; "
            f"at least {_FITTED['reject_below']:+.3f} is required."
        )
    if against:
        return "reject", tuple(against)
    if not changed:
        return "no change", (
            f"The answer changes on {figures['answers_changed']:.1%} of the clips; "
            f"at least {_SAME:.0%} is required.",
        )
    gained = "" if gain is None else f"The estimated accuracy changes by {gain:+.3f}. "
    if gain is not None and gain < _FITTED["improved_from"]:
        return "no change", (f"{gained}So small a change is within the error of the estimate.",)
    return "improved", (f"{gained}Accuracy on the source is {after:.3f}; before, {before:.3f}.",)


def core_columns(labels: tuple[str, ...]) -> list[int]:
    """Columns of angry, happy, neutral and sad; all columns if one of these is missing."""
    columns = [labels.index(name) for name in CORE_EMOTIONS if name in labels]
    return columns if len(columns) == len(CORE_EMOTIONS) else list(range(len(labels)))


def estimate(figures: dict[str, float]) -> Estimate | None:
    """Estimate the accuracy from :func:`observe`; None if one of its figures is missing."""
    value = _on_line("accuracy", figures)
    if value is None:
        return None
    return Estimate(value=min(1.0, max(0.0, value)), error=_FITTED["error"])


def _on_line(name: str, figures: dict[str, float]) -> float | None:
    line: dict[str, float] = _FITTED[name]
    if not line.keys() - {""} <= figures.keys():
        return None
    return sum(weight * figures.get(figure, 1.0) for figure, weight in line.items())


def _distance(slots: Floats, clips: Floats) -> float:
    """Median distance of the clips from their nearest slots, relative to that within the memory."""
    slots, clips = (np.clip(x, -_TAIL, _TAIL) for x in (slots, clips))
    count = max(1, min(_DOMAIN_SLOTS, len(slots) - 1))
    some = slots[np.linspace(0, len(slots) - 1, min(len(slots), 512)).round().astype(int)]
    own = _nearest(some, slots, min(count + 1, len(slots)))
    among = np.median(own[:, -count:].mean(1))  # the nearest one is the slot itself
    return float(np.median(_nearest(clips, slots, count).mean(1)) / max(float(among), _TINY))


def _nearest(clips: Floats, memory: Floats, count: int) -> Floats:
    """Distances to the nearest slots, nearest first, shape ``(clips, count)``."""
    squares = np.square(memory).sum(1)
    rows = []
    for start in range(0, len(clips), 1024):
        part = clips[start : start + 1024]
        found = np.square(part).sum(1)[:, None] + squares - 2.0 * part @ memory.T
        rows.append(np.sort(np.partition(found, count - 1, axis=1)[:, :count], axis=1))
    nearest: Floats = np.sqrt(np.maximum(np.concatenate(rows), 0.0))
    return nearest


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean())
