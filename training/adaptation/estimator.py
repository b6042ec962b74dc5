"""How accurate is a head on clips without labels? By whether its parts say the same."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from service.inference.labels import CORE_EMOTIONS
from training.adaptation.head import AdaptedHead
from training.adaptation.material import Target
from training.adaptation.report import Estimate

_INTERCEPT, _BLOCKS, _VIEWS, _LARGEST = -0.946, 1.013, 1.412, -0.154
_ERROR = 0.092
"""Fitted by ``python -m benchmarks.estimator`` on development pairs; the error is the mean absolute
one on pairs left out."""


def core_columns(labels: tuple[str, ...]) -> list[int]:
    """Columns of the four emotions that all corpora share; of all emotions where some lack."""
    columns = [labels.index(name) for name in CORE_EMOTIONS if name in labels]
    return columns if len(columns) == len(CORE_EMOTIONS) else list(range(len(labels)))


@torch.no_grad()
def agreement(head: AdaptedHead, target: Target, columns: list[int]) -> dict[str, float]:
    """What the estimate rests on, each in [0, 1].

    Args:
        head: adapted, in evaluation mode.
        target: the clips.
        columns: emotions that are answered.

    Returns:
        ``block_agreement``: share of clips for which the first part of the feature (convolutional)
        and the second (functionals) say the same by themselves; ``view_agreement``: share of
        augmented clips answered as the clip as recorded; ``largest_share``: of one emotion in the
        answers. The first two are missing where there is one part, or no view.
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
    """Estimate the accuracy from :func:`agreement`; None where one of its figures is missing.

    References:
        Jiang et al., *Assessing Generalization of SGD via Disagreement*, arXiv 2106.13799: two
        networks agree about as often as they are right. Here the two are the parts of one feature,
        and a line fitted between corpora with labels takes the place of the equality.
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


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())
