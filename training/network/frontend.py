"""The front end: waveform to log-mel features, as layers, so that the ONNX graph contains it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ..config import FrontEndConfig

_LEVEL_RMS = 0.1  # every clip is scaled to this level: a quiet recording need not be a calm voice
_SMALL_VARIANCE = 0.25  # of log power; a constant band is not amplified without limit
_SILENCE_RMS = 1e-5  # a clip below this is silence; its dither is not scaled up


def frequency_to_mel(frequency_hz: Tensor) -> Tensor:
    """HTK mel scale: 2595 log10(1 + f / 700)."""
    return 2595.0 * torch.log10(1.0 + frequency_hz / 700.0)


def mel_to_frequency(mel: Tensor) -> Tensor:
    """Inverse of :func:`frequency_to_mel`, in Hz."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_filterbank(num_bins: int, n_mels: int, low_hz: float, high_hz: float, rate: int) -> Tensor:
    """Triangular filters of height 1, equally spaced in mel, shape ``(num_bins, n_mels)``.

    Args:
        num_bins: bins of the spectrum, from 0 Hz to ``rate / 2``.
        n_mels: filters.
        low_hz: lower edge of the first filter, Hz.
        high_hz: upper edge of the last filter, Hz.
        rate: sample rate, Hz.

    Examples:
        >>> mel_filterbank(257, 80, 50.0, 7600.0, 16_000).shape
        torch.Size([257, 80])
    """
    bins_hz = torch.linspace(0.0, rate / 2, num_bins, dtype=torch.float64)
    low, high = frequency_to_mel(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    edges = mel_to_frequency(torch.linspace(low, high, n_mels + 2, dtype=torch.float64))
    rising = (bins_hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins_hz[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0).float()


class FrontEnd(nn.Module):
    """Level normalisation and log-mel power, for padded batches.

    The spectrum is a matrix product of blocks of one hop with a windowed Fourier basis: every
    runtime supports it, and it costs as much as one small convolution.

    Args:
        config: sizes in samples; ``win_length`` is a multiple of ``hop_length``.

    Examples:
        >>> front_end = FrontEnd(FrontEndConfig())
        >>> features, mask = front_end(torch.randn(2, 16_000), torch.tensor([16_000, 8_000]))
        >>> features.shape, mask.sum(-1).flatten().tolist()
        (torch.Size([2, 1, 64, 61]), [61.0, 30.0])
    """

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        self.config = config
        self.hop_length = config.hop_length
        self.blocks_per_window = config.win_length // config.hop_length
        num_bins = config.win_length // 2 + 1
        time = torch.arange(config.win_length, dtype=torch.float64)
        angle = 2 * math.pi / config.win_length * time[:, None] * torch.arange(num_bins)
        window = torch.hann_window(config.win_length, periodic=True, dtype=torch.float64)[:, None]
        basis = torch.cat([window * angle.cos(), window * angle.sin()], dim=1).float()
        filters = mel_filterbank(
            num_bins, config.n_mels, config.low_hz, config.high_hz, config.sample_rate
        )
        # Not persistent: computed from the config, never learnt.
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.basis: Tensor
        self.filters: Tensor

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Frames of clips of so many samples: ``lengths // hop - win / hop + 1``, at least 1."""
        return (lengths // self.hop_length - self.blocks_per_window + 1).clamp(min=1)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the normalised features of a padded batch; shapes as in :meth:`log_mel`."""
        features, mask = self.log_mel(waveform, lengths)
        return self.normalise(features, mask), mask

    def log_mel(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the log-mel power of a padded batch.

        Args:
            waveform: float32 in [-1, 1], shape ``(batch, num_samples)``, at least one window long.
            lengths: int64, shape ``(batch,)``; samples of each clip that are not padding.

        Returns:
            Log-mel power, shape ``(batch, 1, n_mels, num_frames)``, and a mask of ones where a
            frame holds the clip and zeros where it holds padding, ``(batch, 1, 1, num_frames)``.
        """
        valid = (torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]).float()
        waveform = waveform * valid
        mean_square = waveform.square().sum(1, keepdim=True) / lengths[:, None]
        waveform = waveform * (_LEVEL_RMS / mean_square.sqrt().clamp(min=_SILENCE_RMS))

        num_blocks = waveform.shape[1] // self.hop_length
        blocks = waveform[:, : num_blocks * self.hop_length].reshape(
            -1, num_blocks, self.hop_length
        )
        num_frames = num_blocks - self.blocks_per_window + 1
        frames = torch.cat(
            [blocks[:, i : i + num_frames] for i in range(self.blocks_per_window)], dim=2
        )
        cosine, sine = (frames @ self.basis).chunk(2, dim=2)
        power = (cosine.square() + sine.square()) @ self.filters
        features = torch.log(power + self.config.log_floor).transpose(1, 2).unsqueeze(1)

        frame_index = torch.arange(num_frames, device=waveform.device)
        mask = (frame_index < self.num_frames(lengths)[:, None]).float()[:, None, None]
        return features, mask

    def normalise(self, features: Tensor, mask: Tensor) -> Tensor:
        """Reduce the influence of channel and speaker.

        ``band_mean`` is the share of each band's mean over time that is subtracted: 1 is cepstral
        mean normalisation; 0 keeps the spectral tilt, in which loud and soft voices differ. The
        rest is divided by a fixed scale, or by the deviation of the clip or of each band.

        Args:
            features: log-mel power, shape ``(batch, 1, n_mels, num_frames)``.
            mask: as from :meth:`log_mel`.

        Returns:
            Features within [-4, 4], the same shape, zero in the padding.
        """
        count = mask.sum((2, 3), keepdim=True)
        band_mean = (features * mask).sum(3, keepdim=True) / count
        overall = band_mean.mean(2, keepdim=True)
        share = self.config.band_mean
        centred = features - share * band_mean - (1.0 - share) * overall
        scale = self.config.scale
        if self.config.deviation != "fixed":
            variance = (centred.square() * mask).sum(3, keepdim=True) / count
            if self.config.deviation == "clip":
                variance = variance.mean(2, keepdim=True)
            centred = centred / (variance + _SMALL_VARIANCE).sqrt()
            scale = 1.5
        return F.hardtanh(centred / scale, -4.0, 4.0) * mask
