"""The convolutional encoder: log-mel features to one pooled feature per clip; padding is masked."""

import torch
from torch import Tensor, nn

from ...config import EncoderConfig


class MixStyle(nn.Module):
    """Mix each clip's channel statistics with another clip's during training.

    It simulates new recording conditions.

    References:
        Zhou et al., *Domain Generalization with MixStyle*, ICLR 2021, arXiv 2104.02008. Here the
        statistics are per channel, over bands and time.

    Args:
        p: probability that a batch is mixed.
        alpha: of the Beta distribution of the share kept.
    """

    def __init__(self, p: float, alpha: float) -> None:
        super().__init__()
        self.p = p
        self.alpha = alpha

    def forward(self, features: Tensor) -> Tensor:
        """Mix ``(batch, channels, bands, frames)`` without padding; evaluation changes nothing."""
        if not self.training or torch.rand(()) >= self.p:
            return features
        variance, mean = torch.var_mean(features.detach(), (2, 3), correction=0, keepdim=True)
        deviation = variance.clamp(min=1e-5).sqrt()
        batch = features.shape[0]
        share = torch.distributions.Beta(self.alpha, self.alpha).sample((batch, 1, 1, 1))
        share = share.to(features.device, features.dtype)
        other = torch.randperm(batch, device=features.device)
        mixed_mean = share * mean + (1 - share) * mean[other]
        mixed_deviation = share * deviation + (1 - share) * deviation[other]
        # one multiplication and one addition per value
        gain = mixed_deviation / deviation
        return torch.addcmul(mixed_mean - mean * gain, features, gain)


def masked(features: Tensor, mask: Tensor | None) -> Tensor:
    """Set the padding to zero; None means that there is none, as in the full crops of training."""
    return features if mask is None else features * mask


def masked_mean(features: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over bands and unpadded frames.

    Args:
        features: shape ``(batch, channels, bands, frames)``, zero where ``mask`` is.
        mask: shape ``(batch, 1, 1, frames)``, or None where nothing is padded.

    Returns:
        Shape ``(batch, channels, 1, 1)``.
    """
    if mask is None:
        return features.mean((2, 3), keepdim=True)
    count = mask.sum(3, keepdim=True) * features.shape[2]
    return features.sum((2, 3), keepdim=True) / count


class SqueezeExcite(nn.Module):
    """Channel gates from the mean of a clip (Hu et al., arXiv 1709.01507); padding is masked."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Scale each channel; shapes as in :func:`masked_mean`."""
        gates: Tensor = self.gate(masked_mean(features, mask))
        return features * gates


class ResidualBlock(nn.Module):
    """Two masked 3x3 convolutions, squeeze-excite and a shortcut (He et al., arXiv 1512.03385).

    Every convolution's input is zero wherever the mask is, so its zero padding at the end of a
    clip alone and the padding of a batch look the same to it.
    """

    def __init__(self, channels_in: int, channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.time_stride = stride[1]
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.squeeze_excite = SqueezeExcite(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != (1, 1) or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the block's output and its mask, both at the block's frame rate."""
        shortcut = self.shortcut(features)
        mask = None if mask is None else mask[..., :: self.time_stride]
        hidden = masked(torch.relu_(self.norm1(self.conv1(features))), mask)
        hidden = self.squeeze_excite(masked(self.norm2(self.conv2(hidden)), mask), mask)
        return masked(torch.relu_(hidden + shortcut), mask), mask


class AttentiveStatistics(nn.Module):
    """Attention-weighted mean and standard deviation over time (Okabe et al., arXiv 1803.10963)."""

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv1d(channels, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, channels, 1)
        )

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Pool ``(batch, channels, frames)`` to ``(batch, 2 * channels)``."""
        scores = self.attention(features).float()
        if mask is not None:
            scores = scores.masked_fill(mask == 0, -1e4)
        weights = torch.softmax(scores, dim=2)
        features = features.float()
        mean = (weights * features).sum(2)
        variance = (weights * features.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-4).sqrt()], dim=1)


class Encoder(nn.Module):
    """A small residual network with squeeze-excite and attentive statistics pooling.

    Args:
        config: sizes.
        n_mels: bands of the front end.

    Examples:
        >>> encoder = Encoder(EncoderConfig(), n_mels=64)
        >>> encoder(torch.randn(2, 1, 64, 61), torch.ones(2, 1, 1, 61)).shape
        torch.Size([2, 256])
    """

    def __init__(self, config: EncoderConfig, n_mels: int) -> None:
        super().__init__()
        width = config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(1, width[0], (5, 5), (2, 2), (2, 2), bias=False),
            nn.BatchNorm2d(width[0]),
            nn.ReLU(),
        )
        bands = -(-n_mels // 2)
        blocks, mixers, channels = [], [], width[0]
        for stage, (out, depth) in enumerate(zip(width, config.depths, strict=True)):
            for index in range(depth):
                stride = (1, 1)
                if index == 0 and stage > 0:
                    stride = (2, 2) if stage < config.time_strides else (2, 1)
                    bands = -(-bands // 2)
                blocks.append(ResidualBlock(channels, out, stride))
                mix = index == depth - 1 and stage in config.mixstyle_stages
                mixers.append(MixStyle(config.mixstyle_p, config.mixstyle_alpha) if mix else None)
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.mixers = nn.ModuleList([mixer or nn.Identity() for mixer in mixers])
        self.project = nn.Sequential(
            nn.Conv1d(channels * bands, config.pooled_channels, 1, bias=False),
            nn.BatchNorm1d(config.pooled_channels),
            nn.ReLU(),
        )
        self.pool = AttentiveStatistics(config.pooled_channels)

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Encode a padded batch.

        Args:
            features: log-mel, shape ``(batch, 1, n_mels, frames)``.
            mask: ones on unpadded frames, shape ``(batch, 1, 1, frames)``; None: no padding.

        Returns:
            The pooled feature h, shape ``(batch, 2 * pooled_channels)``.
        """
        hidden = self.stem(features)
        mask = None if mask is None else mask[..., ::2]
        hidden = masked(hidden, mask)
        for block, mixer in zip(self.blocks, self.mixers, strict=True):
            hidden, mask = block(hidden, mask)
            if isinstance(mixer, MixStyle):
                hidden = mixer(hidden)
        frame_mask = None if mask is None else mask[:, :, 0]
        # (batch, channels, bands, frames) -> (batch, channels * bands, frames)
        hidden = masked(self.project(hidden.flatten(1, 2)), frame_mask)
        pooled: Tensor = self.pool(hidden, frame_mask)
        return pooled
