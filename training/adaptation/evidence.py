"""Evidence without labels: the verdict on an adapted head, and an estimate of its accuracy."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ...service.inference.card import CORE_EMOTIONS
from ..network.head import Head
from .head import AdaptedHead, Source, Target
from .pseudo_labels import vote
from .report import Estimate, Evidence, Verdict

_INTERCEPT, _BLOCKS, _VIEWS, _LARGEST = -0.946, 1.013, 1.412, -0.154
_ERROR = 0.092
"""Coefficients of the estimated accuracy, fitted by ``python -m benchmarks.estimator`` on the
development pairs; the error is the mean absolute error on pairs left out."""

_LEAST_KEPT = 0.9
"""Minimum accuracy on the source, as a share of the old head's."""

_COLLAPSE = 0.9
"""Maximum share of one emotion in the answers on the target."""

_FARTHEST = 1.6
"""Maximum median distance of the clips from the memory, relative to distances within the memory. In
development, speech of another corpus had 1.07 to 1.26; noise, music and babble 1.98 to 2.16."""

_WORSE = 0.03
"""Maximum fall of the estimated accuracy."""

_SAME = 0.01
"""Minimum share of changed answers; below it the verdict is "no change"."""

_VOTE_SLOTS = 20
_DOMAIN_SLOTS = 10
_MOST_SLOTS = 4096
_TAIL = 4.0


@torch.no_grad()
def collect_evidence(
    old: Head,
    adapted: AdaptedHead,
    source: Source,
    target: Target,
    labels: tuple[str, ...],
) -> Evidence:
    """Compare a head before and after adaptation.

    Args:
        old: before.
        adapted: after, in evaluation mode.
        source: the memory, with labels.
        target: the clips, without labels.
        labels: emotions in the order of the logits.

    Returns:
        The verdict, its reasons, the estimated accuracy, and the figures behind them.
    """
    before = AdaptedHead(old.eval(), target, target_statistics=0.0).eval()
    columns = core_columns(labels)
    agreed_before = agreement(before, target, columns)
    agreed = agreement(adapted, target, columns)
    slots = _evenly_spaced(len(source.emotion))
    source_projection = adapted.project_source(source.pooled)
    target_projection = adapted.project_target(target.pooled)
    logits_before = before.classify(before.project_target(target.pooled))
    logits = adapted.classify(target_projection)
    answer = logits.argmax(1)
    votes = vote(
        target_projection,
        source_projection[slots],
        source.emotion[slots],
        len(labels),
        _VOTE_SLOTS,
    )
    old_answers = before.classify(before.project_source(source.pooled)).argmax(1)
    figures = {
        "source_accuracy_before": _share(old_answers == source.emotion),
        "source_accuracy_after": _share(
            adapted.classify(source_projection).argmax(1) == source.emotion
        ),
        "answers_changed": _share(logits_before.argmax(1) != answer),
        "largest_emotion_share": float(torch.bincount(answer).max()) / len(answer),
        "mean_confidence_before": float(logits_before.softmax(1).amax(1).mean()),
        "mean_confidence_after": float(logits.softmax(1).amax(1).mean()),
        "classifier_memory_agreement": _share(votes.argmax(1) == answer),
        "distance_to_memory": _distance(source.pooled[slots], target.pooled),
        **{f"{name}_before": value for name, value in agreed_before.items()},
        **{f"{name}_after": value for name, value in agreed.items()},
    }
    expected_before, expected = estimate(agreed_before), estimate(agreed)
    if expected_before is not None:
        figures["estimated_accuracy_before"] = expected_before.value
    fall = None if not (expected_before and expected) else expected_before.value - expected.value
    verdict, reasons = _verdict(figures, fall)
    return Evidence(verdict=verdict, reasons=reasons, estimated_accuracy=expected, figures=figures)


def _verdict(figures: dict[str, float], fall: float | None) -> tuple[Verdict, tuple[str, ...]]:
    against = []
    distance = figures["distance_to_memory"]
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
    share = figures["largest_emotion_share"]
    if share > _COLLAPSE:
        against.append(
            f"{share:.0%} of the clips get the same emotion; at most {_COLLAPSE:.0%} is accepted."
        )
    if fall is not None and fall > _WORSE:
        against.append(
            f"The estimated accuracy falls by {fall:.3f}; at most {_WORSE:g} is accepted."
        )
    if against:
        return "reject", tuple(against)
    if figures["answers_changed"] < _SAME:
        return "no change", (
            f"The answer changes on {figures['answers_changed']:.1%} of the clips; "
            f"at least {_SAME:.0%} is required.",
        )
    gained = "" if fall is None else f"The estimated accuracy changes by {-fall:+.3f}. "
    if fall is not None and fall > 0:
        return "no change", (f"{gained}So small a change is within the error of the estimate.",)
    return "improved", (f"{gained}Accuracy on the source is {after:.3f}; before, {before:.3f}.",)


def core_columns(labels: tuple[str, ...]) -> list[int]:
    """Columns of angry, happy, neutral and sad; all columns if one of these is missing."""
    columns = [labels.index(name) for name in CORE_EMOTIONS if name in labels]
    return columns if len(columns) == len(CORE_EMOTIONS) else list(range(len(labels)))


@torch.no_grad()
def agreement(head: AdaptedHead, target: Target, columns: list[int]) -> dict[str, float]:
    """The inputs of :func:`estimate`, each in [0, 1].

    Args:
        head: adapted, in evaluation mode.
        target: the clips.
        columns: emotions that may be answered.

    Returns:
        ``block_agreement``: share of clips for which the two parts of the feature (convolutional
        and functionals), each alone, give the same answer; ``view_agreement``: share of augmented
        views with the answer of the clip as recorded; ``largest_share``: share of the most frequent
        answer. The first is missing if there is one part, the second if there are no views.
    """
    projection = head.project_target(target.pooled)
    answer = head.classify(projection)[:, columns].argmax(1)
    counts = torch.bincount(answer, minlength=len(columns))
    figures = {"largest_share": float(counts.max()) / len(answer)}
    width = head.head.projection.width
    classes = F.normalize(head.head.classes, dim=1)
    opinions = [
        (part @ own.T)[:, columns].argmax(1)
        for part, own in zip(
            torch.split(projection, width, 1), torch.split(classes, width, 1), strict=True
        )
    ]
    if len(opinions) > 1:
        figures["block_agreement"] = _share(opinions[0] == opinions[1])
    if len(target.views):
        views = torch.stack([head.classify(head.project_target(view)) for view in target.views])
        figures["view_agreement"] = _share(views[:, :, columns].argmax(2) == answer)
    return figures


def estimate(figures: dict[str, float]) -> Estimate | None:
    """Estimate the accuracy from :func:`agreement`; None if one of its figures is missing.

    References:
        Jiang et al., *Assessing Generalization of SGD via Disagreement*, arXiv 2106.13799: two
        networks agree about as often as they are right. Here the two are the parts of one feature,
        and a linear function, fitted on pairs of labelled corpora, replaces the equality.
    """
    if not {"block_agreement", "view_agreement"} <= figures.keys():
        return None
    value = (
        _INTERCEPT
        + _BLOCKS * figures["block_agreement"]
        + _VIEWS * figures["view_agreement"]
        + _LARGEST * figures["largest_share"]
    )
    return Estimate(value=min(1.0, max(0.0, value)), error=_ERROR)


def _distance(memory: Tensor, pooled: Tensor) -> float:
    """Median distance of the clips from their nearest slots, relative to that within the memory."""
    centre, spread = memory.mean(0), memory.std(0, correction=0).clamp(min=1e-6)
    slots, clips = (((x - centre) / spread).clamp(-_TAIL, _TAIL) for x in (memory, pooled))
    count = max(1, min(_DOMAIN_SLOTS, len(slots) - 1))
    own = _nearest(slots[_evenly_spaced(len(slots), 512)], slots, min(count + 1, len(slots)))
    among = own[:, -count:].mean(1).median()  # the nearest one is the slot itself
    return float(_nearest(clips, slots, count).mean(1).median() / among.clamp(min=1e-6))


def _nearest(clips: Tensor, memory: Tensor, count: int) -> Tensor:
    rows = [
        torch.cdist(part, memory).topk(count, dim=1, largest=False).values
        for part in torch.split(clips, 1024)
    ]
    return torch.cat(rows)


def _evenly_spaced(count: int, most: int = _MOST_SLOTS) -> Tensor:
    """At most ``most`` of ``count`` indices, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())
