"""The head while it is trained: statistics of each corpus, projection, cosine classes."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ...service.inference.head import Head as TrainedHead
from ..config import HeadConfig

_LEAST_VARIANCE = 1e-5
_LARGEST_SCALE = 30.0


class Head(nn.Module):
    """Standardise by the corpus, project to the unit sphere, and classify by cosine.

    Each corpus is standardised by its own statistics, half by the batch's and half by running
    ones, since a batch holds few clips of a corpus. A new language is answered in the same way:
    by its own statistics, if it has some, which adaptation puts in.

    Args:
        config: width of the projection, dropout, first logit scale, momentum.
        num_features: numbers of the pooled feature.
        num_emotions: logits.
        num_corpora: whose statistics are kept.

    Examples:
        >>> head = Head(HeadConfig(), num_features=6, num_emotions=4, num_corpora=2)
        >>> pooled, corpus = torch.randn(8, 6), torch.arange(8) % 2
        >>> logits, projection = head(head.standardise(pooled, corpus))
        >>> logits.shape, projection.shape
        (torch.Size([8, 4]), torch.Size([8, 256]))
        >>> bool(torch.allclose(projection.norm(dim=1), torch.ones(8)))
        True
    """

    def __init__(
        self, config: HeadConfig, num_features: int, num_emotions: int, num_corpora: int
    ) -> None:
        super().__init__()
        self.momentum = config.momentum
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(num_features, config.projection)
        self.classes = nn.Parameter(0.05 * torch.randn(num_emotions, config.projection))
        self.scale = nn.Parameter(torch.tensor(config.logit_scale).log())
        self.register_buffer("mean", torch.zeros(num_corpora, num_features))
        self.register_buffer("deviation", torch.ones(num_corpora, num_features))
        self.register_buffer("seen", torch.zeros(num_corpora, dtype=torch.bool))
        self.mean: Tensor
        self.deviation: Tensor
        self.seen: Tensor

    def standardise(self, pooled: Tensor, corpus: Tensor) -> Tensor:
        """Standardise a training batch, and update the running statistics.

        Args:
            pooled: h, shape ``(batch, D)``.
            corpus: index of each clip's corpus, shape ``(batch,)``.

        Returns:
            x, shape ``(batch, D)``.
        """
        standard = torch.zeros_like(pooled)
        for index in torch.unique(corpus).tolist():
            own = corpus == index
            variance, mean = torch.var_mean(pooled[own], dim=0, correction=0)
            deviation = (variance + _LEAST_VARIANCE).sqrt()
            with torch.no_grad():
                step = self.momentum if bool(self.seen[index]) else 1.0
                self.mean[index].lerp_(mean.detach(), step)
                self.deviation[index].lerp_(deviation.detach(), step)
                self.seen[index] = True
            mean = 0.5 * (mean + self.mean[index])
            deviation = 0.5 * (deviation + self.deviation[index])
            standard[own] = (pooled[own] - mean) / deviation
        return standard

    def forward(self, standard: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised features x ``(batch, D)`` to logits and unit features z."""
        projection = F.normalize(self.projection(self.dropout(standard)), dim=1)
        scale = self.scale.exp().clamp(max=_LARGEST_SCALE)
        return scale * projection @ F.normalize(self.classes, dim=1).T, projection

    @torch.no_grad()
    def export(self) -> TrainedHead:
        """The head for a language that is not known: the mean of the corpora's statistics.

        The mean is averaged, and so is the logarithm of the deviation.
        """
        return TrainedHead(
            mean=self.mean.mean(0).numpy(),
            deviation=self.deviation.log().mean(0).exp().numpy(),
            weight=self.projection.weight.numpy().copy(),
            bias=self.projection.bias.numpy().copy(),
            classes=F.normalize(self.classes, dim=1).numpy(),
            scale=np.float32(self.scale.exp().clamp(max=_LARGEST_SCALE).item()),
        )
