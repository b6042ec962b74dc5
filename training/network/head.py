"""The head: from the pooled feature to the logits; adaptation trains this part only."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ..config import HeadConfig

_LARGEST = 4.0
"""Largest normalised feature: functionals have heavy tails, and one must not dominate ``z``."""


class BlockProjection(nn.Module):
    """A linear layer for each part of a feature; each result, and all together, have unit length.

    The weights of the parts lie side by side. With one part this is ``nn.Linear`` and a
    normalisation.

    Args:
        blocks: widths of the parts.
        width: outputs per part.
    """

    def __init__(self, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        layers = [nn.Linear(block, width) for block in blocks]
        self.blocks, self.width = list(blocks), width
        self.in_features, self.out_features = sum(blocks), width * len(layers)
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers], dim=1))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, in_features)`` to unit vectors ``(batch, out_features)``."""
        parts = zip(
            torch.split(features, self.blocks, dim=1),
            torch.split(self.weight, self.blocks, dim=1),
            torch.split(self.bias, self.width),
            strict=True,
        )
        spheres = [F.normalize(F.linear(*part), dim=1) for part in parts]
        return torch.cat(spheres, dim=1) / math.sqrt(len(spheres))


class Head(nn.Module):
    """Normalise, project to the unit sphere, and classify by cosine.

    The batch normalisation at the entrance is where adaptation puts the target's statistics. Each
    part of the pooled feature has its own projection, and all parts count alike in ``z``.

    Args:
        config: width of the projection, dropout, first logit scale.
        blocks: widths of the parts of the pooled feature.
        num_emotions: logits.

    Examples:
        >>> head = Head(HeadConfig(), blocks=(256, 405), num_emotions=4).eval()
        >>> logits, projection = head(torch.randn(3, 661))
        >>> logits.shape, projection.shape
        (torch.Size([3, 4]), torch.Size([3, 256]))
        >>> bool(torch.allclose(projection.norm(dim=1), torch.ones(3)))
        True
    """

    def __init__(self, config: HeadConfig, blocks: Sequence[int], num_emotions: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(sum(blocks))
        self.dropout = nn.Dropout(config.dropout)
        self.projection = BlockProjection(blocks, config.projection)
        self.classes = nn.Parameter(torch.empty(num_emotions, self.projection.out_features))
        nn.init.kaiming_uniform_(self.classes, a=5**0.5)
        self.scale = nn.Parameter(torch.tensor(config.logit_scale).log())

    def project(self, pooled: Tensor) -> Tensor:
        """Pooled features ``(batch, D)`` to z on the unit sphere ``(batch, projection)``."""
        return self.project_normalised(self.norm(pooled))

    def project_normalised(self, normalised: Tensor) -> Tensor:
        """The steps of :meth:`project` after the batch normalisation; the same shapes."""
        clamped = F.hardtanh(normalised, -_LARGEST, _LARGEST)
        projection: Tensor = self.projection(self.dropout(clamped))
        return projection

    def classify(self, projection: Tensor) -> Tensor:
        """Logits ``(batch, num_emotions)`` of z ``(batch, projection)``."""
        return self.scale.exp() * projection @ F.normalize(self.classes, dim=1).T

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(batch, num_emotions)`` and z of pooled features ``(batch, D)``."""
        projection = self.project(pooled)
        return self.classify(projection), projection


@torch.no_grad()
def join(config: HeadConfig, heads: Sequence[Head]) -> Head:
    """One head for features side by side; its logits are the mean of the heads' logits.

    With ``n`` heads of scales ``s_i`` and unit class vectors ``k_i``, the class vectors are
    ``(s_1 k_1, ..., s_n k_n)``, all of length ``r = sqrt(s_1^2 + ... + s_n^2)``, and the scale is
    ``r / sqrt(n)``.

    Args:
        config: of all of them.
        heads: of one block each, and of the same emotions.
    """
    blocks = [head.projection.in_features for head in heads]
    joined = Head(config, blocks, len(heads[0].classes))
    norm = joined.norm
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).copy_(torch.cat([getattr(head.norm, name) for head in heads]))
    joined.projection.weight.copy_(torch.cat([head.projection.weight for head in heads], dim=1))
    joined.projection.bias.copy_(torch.cat([head.projection.bias for head in heads]))
    scales = torch.stack([head.scale.exp() for head in heads])
    unit = [F.normalize(head.classes, dim=1) for head in heads]
    joined.classes.copy_(torch.cat([s * k for s, k in zip(scales, unit, strict=True)], dim=1))
    joined.scale.copy_((scales.norm() / math.sqrt(len(heads))).log())
    return joined.train(heads[0].training)
