"""Information maximisation: confident answers for each clip, and all emotions among them."""

import math
from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from ....service.inference.head import Head
from ..head import Floats
from .method import Batch, Method, log_softmax
from .prior import estimate_prior

_TINY = 1e-6


def information_maximisation(logits: Any, prior: Floats) -> Any:
    """Mean entropy of the answers, plus the divergence of their mean from a prior.

    ``mean_i H(p_i) + KL(mean_i p_i || prior)``: with an equal prior over C emotions it
    is ``log C`` less the mutual information of clip and answer.

    Args:
        logits: shape ``(batch, emotions)``.
        prior: shares that sum to 1, shape ``(emotions,)``; 0 counts as 1e-6.

    Returns:
        A scalar, at least 0.

    Examples:
        >>> sure = np.array([[200.0, 0.0], [0.0, 200.0]])
        >>> unsure, even = np.zeros((2, 2)), np.array([0.5, 0.5])
        >>> [round(float(information_maximisation(x, even)), 4) for x in (sure, unsure)]
        [0.0, 0.6931]
    """
    answers = log_softmax(logits)
    entropy = -anp.sum(anp.exp(answers) * answers) / len(logits)
    # the mean taken of logarithms: a share too small for float32 is no log(0)
    top = anp.max(answers, axis=0, keepdims=True)
    mean = anp.log(anp.sum(anp.exp(answers - top), axis=0)) + top[0] - math.log(len(logits))
    wanted = np.log(np.maximum(prior, prior.dtype.type(_TINY)))
    divergence = anp.sum(anp.exp(mean) * (mean - wanted))
    return entropy + divergence


class Entropy(Method):
    """Raise the confidence on each target clip without one answer for all clips.

    References:
        Liang et al., *Do We Really Need to Access the Source Data?* (SHOT), arXiv 2002.08546:
        SHOT-IM, which also holds the class vectors still. Their prior is
        equal; the divergence (instead of the negative entropy of the mean, which differs by a
        constant) allows another one.
    """

    name = "entropy"

    def prepare(self, head: Head) -> None:
        """Compute the shares that the mean answer approaches."""
        # add one to each count: an emotion that the source lacks has a small share instead of 0
        count = np.bincount(self.source.emotion, minlength=len(self.open)).astype(np.float32) + 1
        if self.config.entropy.prior != "source":
            count = np.ones_like(count)
        count = count * self.open
        self.prior: Floats = count / count.sum()

    def refresh(self, head: Head) -> None:
        """Estimate the prior, if the settings say so."""
        if self.config.entropy.prior == "estimated":
            projection = head.project(head.standardise(self.target.pooled))
            logits = self.logits(head, projection) / self.temperature
            self.prior = estimate_prior(logits, self.config.prior, self.open, self.rng)

    def loss(self, batch: Batch, progress: float, weights: Mapping[str, Any]) -> Any:
        """Weighted loss of the target clips of the batch, a scalar."""
        return self.config.entropy.weight * information_maximisation(
            batch.target_logits, self.prior
        )
