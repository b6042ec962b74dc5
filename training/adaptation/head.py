"""What adaptation works on: source and target as features, and the head with statistics of both."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ...service.inference.bundle import Memory
from ..network.head import Head

_LEAST_VARIANCE = 1e-2
"""Minimum variance of a target feature, relative to the source's: it bounds the amplification."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The bundle's memory: the labelled source without its audio.

    Attributes:
        pooled: float32, shape ``(num_slots, D)``.
        emotion: index of the logit, int64, shape ``(num_slots,)``.
    """

    pooled: Tensor
    emotion: Tensor

    @classmethod
    def from_memory(cls, memory: Memory) -> "Source":
        """The memory of a bundle as tensors, without a copy."""
        return cls(torch.from_numpy(memory.features), torch.from_numpy(memory.emotion))


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Clips without labels, as features of the frozen encoder.

    Attributes:
        pooled: of the clips as recorded, float32, shape ``(num_clips, D)``.
        views: of spectral augmentations of the same clips, shape ``(num_views, num_clips, D)``;
            ``num_views`` may be 0.
    """

    pooled: Tensor
    views: Tensor


class AdaptedHead(nn.Module):
    """A copy of a head that normalises source and target by separate statistics.

    Projection and class vectors are trained, the same ones for both sides. The statistics, the
    affine part of the batch normalisation and the logit scale stay as they are.

    References:
        Li et al., *Revisiting Batch Normalization for Practical Domain Adaptation* (AdaBN), arXiv
        1603.04779: target statistics in every normalisation. Here only in the head's, because the
        encoder is frozen and its features are computed once; and only part of the way, because the
        target's mean differs by language and voices, but also by its emotions.

    Args:
        head: of the bundle that is adapted; it is not changed.
        target: its statistics are those of the target's side.
        target_statistics: how far the target's side goes from the source's statistics (0) to the
            target's own (1).
        anchored: train the first block of the feature only. The other blocks keep their weights,
            and their answers are a second opinion that training does not change.

    Examples:
        >>> from nnpm.training.config import HeadConfig
        >>> head = Head(HeadConfig(), blocks=(6,), num_emotions=4).eval()
        >>> target = Target(torch.randn(20, 6) + 3.0, torch.zeros(0, 20, 6))
        >>> adapted = AdaptedHead(head, target, target_statistics=True).eval()
        >>> pooled = torch.randn(5, 6)
        >>> moved = adapted.export().project(adapted.align(pooled))
        >>> bool(torch.allclose(moved, head.project(pooled), atol=1e-5))
        True
    """

    def __init__(
        self, head: Head, target: Target, *, target_statistics: float, anchored: bool = False
    ) -> None:
        super().__init__()
        self.head = deepcopy(head).requires_grad_(False)
        # Only their direction matters. At unit length their steps are as large as the projection's.
        self.head.classes.copy_(F.normalize(self.head.classes, dim=1))
        self._train_blocks(1 if anchored else len(self.head.projection.blocks))
        mean, variance = self.head.norm.running_mean, self.head.norm.running_var
        assert mean is not None
        assert variance is not None
        self.register_buffer("source_mean", mean.clone())
        self.register_buffer("source_variance", variance.clone())
        self.register_buffer("target_mean", mean.clone())
        self.register_buffer("target_variance", variance.clone())
        self.source_mean: Tensor
        self.source_variance: Tensor
        self.target_mean: Tensor
        self.target_variance: Tensor
        self.share = float(target_statistics)
        self.observe(target)

    def observe(self, target: Target) -> None:
        """Set the statistics of the target's side from a target, ``share`` of the way."""
        if self.share == 0.0:
            return
        variance, mean = torch.var_mean(target.pooled, dim=0, correction=0)
        variance = torch.maximum(variance, _LEAST_VARIANCE * self.source_variance)
        self.target_mean.copy_(torch.lerp(self.source_mean, mean, self.share))
        ratio = variance / self.source_variance
        self.target_variance.copy_(self.source_variance * ratio**self.share)

    def project_source(self, pooled: Tensor) -> Tensor:
        """Source features ``(batch, D)`` to z on the unit sphere ``(batch, projection)``."""
        return self._project(pooled, self.source_mean, self.source_variance)

    def project_target(self, pooled: Tensor) -> Tensor:
        """Target features ``(batch, D)`` to z on the unit sphere ``(batch, projection)``."""
        return self._project(pooled, self.target_mean, self.target_variance)

    def classify(self, projection: Tensor) -> Tensor:
        """Logits ``(batch, num_emotions)`` of z ``(batch, projection)``."""
        return self.head.classify(projection)

    def export(self) -> Head:
        """A plain head for the target, with the target's statistics in its batch normalisation."""
        head = deepcopy(self.head).requires_grad_(False)
        norm = head.norm
        norm.running_mean, norm.running_var = self.target_mean.clone(), self.target_variance.clone()
        return head.eval()

    def align(self, pooled: Tensor) -> Tensor:
        """Shift and scale source features ``(n, D)`` to the target's statistics.

        ``export().project(align(h)) == project_source(h)``: with aligned features in its memory, an
        adapted bundle votes as this head does, and can be adapted again.
        """
        eps = self.head.norm.eps
        scale = ((self.target_variance + eps) / (self.source_variance + eps)).sqrt()
        return (pooled - self.source_mean) * scale + self.target_mean

    def _train_blocks(self, count: int) -> None:
        """Train only the weights that belong to the first ``count`` blocks of the feature."""
        projection = self.head.projection
        inputs, outputs = sum(projection.blocks[:count]), count * projection.width
        for weight, trained in (
            (projection.weight, inputs),
            (projection.bias, outputs),
            (self.head.classes, outputs),
        ):
            mask = (torch.arange(weight.shape[-1]) < trained).to(weight)
            weight.requires_grad_(True)
            weight.register_hook(partial(torch.mul, mask))  # type: ignore[no-untyped-call]

    def _project(self, pooled: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        norm = self.head.norm
        standard = F.batch_norm(pooled, mean, variance, norm.weight, norm.bias, eps=norm.eps)
        return self.head.project_normalised(standard)
