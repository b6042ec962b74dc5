"""Information maximisation: confident answers for each clip, and all emotions among them."""

import torch
from torch import Tensor

from ..config import AdaptConfig
from ..head import AdaptedHead, Source, Target
from .method import Batch, Method


def information_maximisation(logits: Tensor, prior: Tensor) -> Tensor:
    """Mean entropy of the answers, plus the divergence of their mean from a prior.

    ``mean_i H(p_i) + KL(mean_i p_i || prior)``: with an equal prior over C emotions it is
    ``log C`` less the mutual information of clip and answer.

    Args:
        logits: shape ``(batch, emotions)``.
        prior: shares above 0 that sum to 1, shape ``(emotions,)``.

    Returns:
        A scalar, at least 0.

    Examples:
        >>> sure = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
        >>> unsure, even = torch.zeros(2, 2), torch.tensor([0.5, 0.5])
        >>> information_maximisation(sure, even), information_maximisation(unsure, even)
        (tensor(0.), tensor(0.6931))
    """
    answers = logits.log_softmax(1)
    entropy = -(answers.exp() * answers).sum(1).mean()
    # the mean taken of logarithms: a share too small for float32 is no log(0)
    mean = answers.logsumexp(0) - torch.tensor(float(len(answers))).log()
    return entropy + (mean.exp() * (mean - prior.log())).sum()


class Entropy(Method):
    """Raise the confidence on each target clip without one answer for all clips.

    References:
        Liang et al., *Do We Really Need to Access the Source Data?* (SHOT), arXiv 2002.08546:
        SHOT-IM, which also holds the class vectors still. Their prior is
        equal; the divergence (instead of the negative entropy of the mean, which differs by a
        constant) allows another one.
    """

    name = "entropy"

    def __init__(
        self, config: AdaptConfig, source: Source, target: Target, head: AdaptedHead
    ) -> None:
        super().__init__(config, source, target, head)
        emotions = len(head.head.classes)
        # add one to each count: an emotion that the source lacks has a small share instead of 0
        count = torch.bincount(source.emotion, minlength=emotions).float() + 1.0
        if config.entropy.prior == "uniform":
            count = torch.ones(emotions)
        self.prior = count / count.sum()

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Weighted loss of the target clips of the batch, a scalar."""
        return self.config.entropy.weight * information_maximisation(
            batch.target_logits, self.prior
        )
