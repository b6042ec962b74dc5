"""The NNPM network: encoder, pooling over time, and head."""

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from .encoders import Encoder
from .head import Head

LEAST_VARIANCE = 1e-8
"""Of a feature over a clip's frames: a root of 0 has no gradient."""


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
