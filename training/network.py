"""The NNPM network: front end, encoder and head in one module, so that one graph holds all."""

from torch import Tensor, nn

from training.classifier import Head
from training.config import Config
from training.encoder import Encoder
from training.frontend import FrontEnd


class Network(nn.Module):
    """Waveform and lengths to logits and the pooled feature.

    References:
        Li, Yan, Wang, arXiv 2108.08663. The paper's encoder is not published; this one is ours
        (docs/method.md).

    Args:
        config: the recipe.
        labels: emotions in the order of the logits.

    Examples:
        >>> import torch
        >>> network = Network(Config(), ("angry", "happy", "neutral", "sad")).eval()
        >>> logits, pooled = network(torch.randn(2, 16_000), torch.tensor([16_000, 9_000]))
        >>> logits.shape, pooled.shape
        (torch.Size([2, 4]), torch.Size([2, 256]))
    """

    def __init__(self, config: Config, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.labels = labels
        self.front_end = FrontEnd(config.front_end)
        self.encoder = Encoder(config.encoder, config.front_end.n_mels)
        self.head = Head(config.head, 2 * config.encoder.pooled_channels, len(labels))

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Score a padded batch; shapes as in :class:`training.frontend.FrontEnd`."""
        pooled = self.encoder(*self.front_end(waveform, lengths))
        return self.head(pooled)[0], pooled
