"""Augmentation of batches of log-mel power, drawn anew in every step."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ..config import AugmentConfig, FrontEndConfig
from ..network.frontend import frequency_to_mel

_DB_TO_LOG_POWER = math.log(10.0) / 10.0
_TELEPHONE_HZ = (300.0, 3400.0)


class SpectralAugment:
    """Vocal-tract warp, tempo, equaliser, noise floor, telephone band and SpecAugment.

    References:
        Jaitly & Hinton 2013 (vocal tract length perturbation, here a warp of the mel axis); Park
        et al., arXiv 1904.08779 (masks; here filled with the clip's mean, 0 after normalisation).

    All but the masks come before the front end's normalisation, on log power: rooms and telephones
    also change a recording before it is normalised.

    Args:
        config: ranges and probabilities.
        front_end: gives the frequencies of the bands.
        generator: of all draws, on the CPU; None takes torch's global one.

    Examples:
        >>> augment = SpectralAugment(AugmentConfig(), FrontEndConfig())
        >>> log_mel = augment(torch.randn(2, 1, 64, 100))
        >>> augment.mask(log_mel).shape
        torch.Size([2, 1, 64, 100])
    """

    def __init__(
        self,
        config: AugmentConfig,
        front_end: FrontEndConfig,
        generator: torch.Generator | None = None,
    ) -> None:
        self.config, self.generator = config, generator
        low, high, *telephone = frequency_to_mel(
            torch.tensor([front_end.low_hz, front_end.high_hz, *_TELEPHONE_HZ])
        ).tolist()
        bands = torch.linspace(low, high, front_end.n_mels + 2)[1:-1]
        self.telephone_band = (bands > telephone[0]) & (bands < telephone[1])

    def __call__(self, log_mel: Tensor) -> Tensor:
        """Vary a batch of full crops of log-mel power, ``(batch, 1, n_mels, frames)``."""
        log_mel = self._warp(log_mel)
        log_mel = log_mel + self._equaliser(log_mel)
        log_mel = self._noise(log_mel)
        return self._telephone(log_mel)

    def mask(self, features: Tensor) -> Tensor:
        """SpecAugment of normalised features of the same shape."""
        config = self.config
        for _ in range(config.frequency_masks):
            features = features * self._gaps(features, 2, config.frequency_mask_bands)
        for _ in range(config.time_masks):
            features = features * self._gaps(features, 3, config.time_mask_frames)
        return features

    def _warp(self, features: Tensor) -> Tensor:
        batch = features.shape[0]
        frequency = 1.0 + self.config.warp * self._either_way(features)
        tempo = 1.0 + self.config.stretch * self._either_way(features)
        # grid_sample's coordinates run from -1 to 1: the lowest band and the first frame stay put,
        # and what lies past the last frame is the crop mirrored.
        theta = torch.zeros(batch, 2, 3, device=features.device)
        theta[:, 0, 0], theta[:, 0, 2] = tempo, tempo - 1.0
        theta[:, 1, 1], theta[:, 1, 2] = frequency, frequency - 1.0
        grid = F.affine_grid(theta, list(features.shape), align_corners=False)
        return F.grid_sample(features, grid, padding_mode="reflection", align_corners=False)

    def _equaliser(self, features: Tensor) -> Tensor:
        batch, _, n_mels, _ = features.shape
        position = torch.linspace(0.0, math.pi, n_mels, device=features.device)
        # three slow cosines; the deviations of the sum add up to equaliser_db
        weights = torch.randn(batch, 3, device=features.device, generator=self.generator)
        weights = weights * self.config.equaliser_db * _DB_TO_LOG_POWER / math.sqrt(1.5)
        curves = torch.stack([(order * position).cos() for order in (1, 2, 3)])
        return (weights @ curves)[:, None, :, None]

    def _noise(self, features: Tensor) -> Tensor:
        """Add a stationary floor of random tilt, 20 to 60 dB under the loudest band and frame."""
        n_mels = features.shape[2]
        loud = features.amax((2, 3), keepdim=True)
        below_db = 20.0 + 40.0 * self._share(features)[:, None, None, None]
        tilt_db = 10.0 * self._either_way(features)[:, None, None, None]
        slope = torch.linspace(-1.0, 1.0, n_mels, device=features.device)[:, None]
        jitter_db = 2.0 * torch.randn(
            features.shape, device=features.device, generator=self.generator
        )
        floor = loud + (tilt_db * slope + jitter_db - below_db) * _DB_TO_LOG_POWER
        noisy = torch.logaddexp(features, floor)  # powers add
        chosen = self._share(features)[:, None, None, None] < self.config.noise_p
        return torch.where(chosen, noisy, features)

    def _telephone(self, features: Tensor) -> Tensor:
        chosen = self._share(features)[:, None, None, None]
        outside = ~self.telephone_band.to(features.device)[:, None]
        quiet = features.amin((2, 3), keepdim=True)
        return torch.where((chosen < self.config.telephone_p) & outside, quiet, features)

    def _gaps(self, features: Tensor, axis: int, longest: int) -> Tensor:
        """Zeros over a random stretch of ``axis`` per clip, ones elsewhere."""
        size = features.shape[axis]
        length = self._share(features) * min(longest, size)
        start = self._share(features) * (size - length)
        index = torch.arange(size, device=features.device)
        inside = (index >= start[:, None]) & (index < (start + length)[:, None])
        shape = [features.shape[0], 1, 1, 1]
        shape[axis] = size
        return (~inside).float().view(shape)

    def _share(self, features: Tensor) -> Tensor:
        """One draw per clip, in [0, 1)."""
        return torch.rand(features.shape[0], device=features.device, generator=self.generator)

    def _either_way(self, features: Tensor) -> Tensor:
        """One draw per clip, in [-1, 1)."""
        return 2.0 * self._share(features) - 1.0


def mixup(features: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend each clip with another (Zhang et al., arXiv 1710.09412).

    Args:
        features: shape ``(batch, ...)``.
        target: label distributions, shape ``(batch, emotions)``.
        alpha: of the Beta distribution of the share kept, which is at least one half.

    Returns:
        Blended features and target.
    """
    batch = features.shape[0]
    share = torch.distributions.Beta(alpha, alpha).sample((batch, 1)).to(features.device)
    share = torch.maximum(share, 1.0 - share)
    other = torch.randperm(batch, device=features.device)
    wide = share.view(-1, *[1] * (features.ndim - 1))
    return (
        wide * features + (1.0 - wide) * features[other],
        share * target + (1.0 - share) * target[other],
    )
