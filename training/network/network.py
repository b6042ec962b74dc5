"""The NNPM network: encoder, pooling over time, and the head while it is trained."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ...service.inference.head import Head as TrainedHead
from ..config import HeadConfig
from .encoders import Encoder

LEAST_VARIANCE = 1e-8
"""Of a feature over a clip's frames: a root of 0 has no gradient."""

_LEAST_CORPUS_VARIANCE = 1e-5
_LARGEST_SCALE = 30.0


def pool(frames: Tensor, mask: Tensor) -> Tensor:
    """Mean and deviation over a clip's frames: h, shape ``(batch, 2 width)``.

    Args:
        frames: shape ``(batch, num_frames, width)``.
        mask: which frames belong to the clip, bool, shape ``(batch, num_frames)``.

    Examples:
        >>> frames = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> pool(frames, torch.tensor([[True, True, False]])).tolist()
        [[2.0, 1.0]]
    """
    weight = mask[..., None].to(frames.dtype)
    count = weight.sum(1).clamp(min=1.0)
    mean = (frames * weight).sum(1) / count
    variance = ((frames - mean[:, None]).square() * weight).sum(1) / count
    return torch.cat([mean, variance.clamp(min=LEAST_VARIANCE).sqrt()], dim=1)


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
            deviation = (variance + _LEAST_CORPUS_VARIANCE).sqrt()
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


class Network(nn.Module):
    """Waveform and lengths to the pooled feature h, and h to logits.

    References:
        Li, Yan, Wang, arXiv 2108.08663. The paper's encoder is not published; this one is a
        pretrained speech encoder (docs/research/method.md).

    Args:
        encoder: of any family.
        head: sizes of the head.
        labels: emotions in the order of the logits.
        num_corpora: whose statistics the head keeps.
    """

    def __init__(
        self, encoder: Encoder, head: HeadConfig, labels: tuple[str, ...], num_corpora: int
    ) -> None:
        super().__init__()
        self.encoder, self.labels = encoder, labels
        self.head = Head(head, 2 * encoder.width, len(labels), num_corpora)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """The pooled feature h of a padded batch, ``(batch, D)``; as :meth:`Encoder.forward`."""
        frames, mask = self.encoder(waveform, lengths)
        return pool(frames.float(), mask)

    def from_states(self, states: Tensor, counts: Tensor, frozen: int) -> Tensor:
        """The same of what the encoder's lower part gave.

        Args:
            states: of :meth:`Encoder.lower`, padded, shape ``(batch, num_frames, width)``.
            counts: frames of each clip, shape ``(batch,)``.
            frozen: stages that do not learn.
        """
        mask = torch.arange(states.shape[1], device=states.device) < counts[:, None]
        frames, mask = self.encoder.upper(states, mask, frozen)
        return pool(frames.float(), mask)
