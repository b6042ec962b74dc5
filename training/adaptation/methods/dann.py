"""Domain-adversarial training: projections that a discriminator cannot tell apart."""

import math
from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

from ....service.inference.head import Head
from ..head import Floats
from .method import Batch, Method


def reverse_gradient(features: Any, strength: float) -> Any:
    """The same values (but for rounding), and ``-strength`` times the gradient.

    Examples:
        >>> from autograd import grad
        >>> slope = grad(lambda x: anp.sum(3.0 * reverse_gradient(x, 0.5)))
        >>> slope(np.array([2.0])).tolist()
        [-1.5]
    """
    return (1.0 + strength) * getval(features) - strength * features


def reversal_strength(progress: float) -> float:
    """How much of the gradient is reversed: from 0 at the start of the steps to almost 1.

    Examples:
        >>> reversal_strength(0.0), round(reversal_strength(0.5), 4)
        (0.0, 0.9866)
    """
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def domain_loss(source: Any, target: Any) -> Any:
    """Cross-entropy of the domains, source 0 and target 1; the mean of each side, added up.

    Args:
        source: logits of "is target", shape ``(num_source,)``.
        target: the same of target clips, shape ``(num_target,)``.
    """
    zero = np.float32(0.0)
    return anp.mean(anp.logaddexp(zero, source)) + anp.mean(anp.logaddexp(zero, -target))


class DANN(Method):
    """Train a domain discriminator on z, and the head against it.

    References:
        Ganin et al., *Domain-Adversarial Training of Neural Networks*, arXiv 1505.07818, also for
        the schedule. Theirs lowers the learning rate too; here it is the same for all methods. The
        discriminator takes z times the root of its width: the components of a unit vector are
        small, and the discriminator would learn slowly at first.
    """

    name = "dann"

    def prepare(self, head: Head) -> None:
        """Draw the first weights of the discriminator."""
        width, hidden = len(head.bias), self.config.dann.hidden
        self.scale = math.sqrt(width)

        def drawn(fan_in: int, *shape: int) -> Floats:
            return self.rng.uniform(-1.0, 1.0, shape).astype(np.float32) / np.float32(fan_in**0.5)

        self._start = {
            "domain_weight": drawn(width, width, hidden),
            "domain_bias": drawn(width, hidden),
            "domain_last": drawn(hidden, hidden),
            "domain_last_bias": drawn(hidden, 1),
        }

    def parameters(self) -> dict[str, Floats]:
        """Those of the discriminator, which lower the loss that the head raises."""
        return self._start

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """The discriminator's loss; on its way to the head the gradient is reversed.

        The weight scales the reversed gradient only: with 0 the discriminator is trained and the
        head is not affected.
        """
        strength = self.config.dann.weight * reversal_strength(progress)

        def is_target(side: Any) -> Any:
            scaled = self.scale * reverse_gradient(side, strength)
            hidden = anp.dot(scaled, weights["domain_weight"]) + weights["domain_bias"]
            hidden = anp.maximum(hidden, np.float32(0.0))
            return anp.dot(hidden, weights["domain_last"]) + weights["domain_last_bias"]

        return domain_loss(is_target(batch.source_projection), is_target(batch.target_projection))
