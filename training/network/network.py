"""The NNPM network: front end, encoder and head in one module, so that one graph contains all."""

import torch
from torch import Tensor, nn

from ..config import Config
from .encoders.cnn import Encoder
from .encoders.functionals import Functionals
from .frontend import FrontEnd
from .head import Head


class Network(nn.Module):
    """Waveform and lengths to logits and the pooled feature.

    The pooled feature h has two parts: the output of the encoder and, if the recipe enables them,
    the functionals.

    References:
        Li, Yan, Wang, arXiv 2108.08663. The paper's encoder is not published; this one is ours
        (docs/research/method.md).

    Args:
        config: the recipe.
        labels: emotions in the order of the logits.

    Examples:
        >>> network = Network(Config(), ("angry", "happy", "neutral", "sad")).eval()
        >>> logits, pooled = network(torch.randn(2, 16_000), torch.tensor([16_000, 9_000]))
        >>> logits.shape, pooled.shape
        (torch.Size([2, 4]), torch.Size([2, 661]))
    """

    def __init__(self, config: Config, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.labels = config, labels
        self.front_end = FrontEnd(config.front_end)
        self.encoder = Encoder(config.encoder, config.front_end.n_mels)
        blocks = [2 * config.encoder.pooled_channels]
        self.functionals: Functionals | None = None
        if config.functionals.enabled:
            self.functionals = Functionals(config.front_end)
            blocks.append(self.functionals.width)
        self.head = Head(config.head, blocks, len(labels))

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Score a padded batch; shapes as in :class:`nnpm.training.network.frontend.FrontEnd`."""
        log_mel, mask = self.front_end.log_mel(waveform, lengths)
        pooled = self.pool(log_mel, self.front_end.normalise(log_mel, mask), mask)
        return self.head(pooled)[0], pooled

    def pool(self, log_mel: Tensor, features: Tensor, mask: Tensor | None) -> Tensor:
        """The pooled feature h of a padded batch, ``(batch, D)``.

        Args:
            log_mel: power, the input of the functionals, ``(batch, 1, n_mels, frames)``.
            features: the same normalised, the input of the encoder.
            mask: ones on unpadded frames, shape ``(batch, 1, 1, frames)``; None: no padding.
        """
        pooled: Tensor = self.encoder(features, mask)
        if self.functionals is None:
            return pooled
        everywhere = torch.ones_like(log_mel[:, :, :1])
        return torch.cat(
            [pooled, self.functionals(log_mel, everywhere if mask is None else mask)], 1
        )
