"""Domain-adversarial training: projections that a discriminator cannot tell apart."""

import math
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ..config import AdaptConfig
from ..head import AdaptedHead, Source, Target
from .method import Batch, Method


def reverse_gradient(features: Tensor, strength: float) -> Tensor:
    """The same values (but for rounding), and ``-strength`` times the gradient.

    Examples:
        >>> import torch
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> (3.0 * reverse_gradient(x, 0.5)).sum().backward()
        >>> x.grad
        tensor([-1.5000])
    """
    return (1.0 + strength) * features.detach() - strength * features


def reversal_strength(progress: float) -> float:
    """How much of the gradient is reversed: from 0 at the start of the steps to almost 1.

    Examples:
        >>> reversal_strength(0.0), round(reversal_strength(0.5), 4)
        (0.0, 0.9866)
    """
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def domain_loss(source: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the domains, source 0 and target 1; the mean of each side, added up.

    Args:
        source: logits of "is target", shape ``(num_source,)``.
        target: the same of target clips, shape ``(num_target,)``.
    """
    return F.softplus(source).mean() + F.softplus(-target).mean()


class DANN(Method):
    """Train a domain discriminator on z, and the head against it.

    References:
        Ganin et al., *Domain-Adversarial Training of Neural Networks*, arXiv 1505.07818, also for
        the schedule. Theirs lowers the learning rate too; here it is the same for all methods. The
        discriminator takes z times the root of its width: the components of a unit vector are
        small, and the discriminator would learn slowly at first.
    """

    name = "dann"

    def __init__(
        self, config: AdaptConfig, source: Source, target: Target, head: AdaptedHead
    ) -> None:
        super().__init__(config, source, target, head)
        width = head.head.projection.out_features
        self.scale = math.sqrt(width)
        self.domain_discriminator = nn.Sequential(
            nn.Linear(width, config.dann.hidden), nn.ReLU(), nn.Linear(config.dann.hidden, 1)
        )

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of the discriminator, which lower the loss that the head raises."""
        return self.domain_discriminator.parameters()

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """The discriminator's loss; on its way to the head the gradient is reversed.

        The weight scales the reversed gradient only: with 0 the discriminator is trained and the
        head is not affected.
        """
        strength = self.config.dann.weight * reversal_strength(progress)
        source, target = (
            self.domain_discriminator(self.scale * reverse_gradient(side, strength))[:, 0]
            for side in (batch.source_projection, batch.target_projection)
        )
        return domain_loss(source, target)
