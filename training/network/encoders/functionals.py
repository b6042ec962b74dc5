"""Functionals: statistics over time of a clip's log-mel power, without learnt weights."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ...config import FrontEndConfig

MODULATIONS_HZ = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
"""Rates of the changes of loudness and spectrum that are measured."""

WIDE_BANDS = 8

_CEPSTRA, _SKEWED, _MODULATED, _CORRELATED = 20, 12, 12, 13
_HALF_WINDOW_S = 0.25  # of the filters of modulation
_LOUD_BELOW_TOP = 3.5  # of log power, 15 dB: a frame that far below the loudest counts half
_DEVIATION_FLOOR = 0.1  # a constant contour has no skewness
_MODULATION_FLOOR = 1e-2


class Functionals(nn.Module):
    """Statistics of log-mel power and of its cepstra over a clip.

    ``L[b, t]`` is the log-mel power, ``c[k, t]`` its orthonormal DCT-II over the bands, ``k < 20``;
    ``mean`` and ``sd`` are over all frames of the clip, ``mean_w`` and ``sd_w`` over its loud ones:
    ``w[t] ~ sigmoid(2 (e[t] - max e + 3.5))``, which sum to 1, where ``e[t]`` is
    ``log(sum_b exp L[b, t] + 1e-3)``. The means of ``L`` and ``c`` are left out: they
    depend on the voice and the microphone.

    ================== ======= ===============================================================
    group              numbers what it is
    ================== ======= ===============================================================
    loud_deviation     20      ``sd_w c[k]``
    deviation          20      ``sd c[k]``
    speed              20      ``mean |c[k, t + 2] - c[k, t]|``
    log_speed          20      ``log(speed + 0.05)``
    band_speed         n_mels  ``mean |L[b, t + 1] - L[b, t]|``
    loud_skewness      12      ``mean_w ((c[k] - mean_w c[k]) / (sd_w c[k] + 0.1))^3``, k < 12
    level              3       skewness and kurtosis of ``c[0]``; ``log(num_frames max w)``
    band_modulation    64      ``log(M(wide band) + 0.01)``: 8 wide bands, 8 rates
    modulation         8       ``log(mean of M over the wide bands + 0.01)``
    cepstral_modulation 96     ``log(M(c[k]) + 0.01)``, k < 12, 8 rates
    correlation        78      ``mean(x[i] x[j]) / ((sd c[i] + 0.1) (sd c[j] + 0.1))``, i < j < 13,
                               where ``x = c - mean c``
    ================== ======= ===============================================================

    ``M(x)`` at a rate is the mean power of ``x - mean x`` after a filter around that rate: a cosine
    and a sine under a Hann window of half a second, the cosine without its mean. A wide band is the
    mean of an eighth of the bands. In the skewness and the kurtosis of ``c[0]``, too, the deviation
    has 0.1 added.

    References:
        Eyben et al., *The Geneva Minimalistic Acoustic Parameter Set*, IEEE Trans. Affective
        Computing 2016, for functionals of low-level descriptors; here of log-mel power alone, and
        without pitch. Wu, Falk, Chan, *Automatic speech emotion recognition using modulation
        spectral features*, Speech Communication 2011, for modulation spectra.

    Args:
        config: of the front end whose log-mel power comes in.

    Examples:
        >>> functionals = Functionals(FrontEndConfig())
        >>> functionals(torch.randn(2, 1, 64, 100), torch.ones(2, 1, 1, 100)).shape
        torch.Size([2, 405])
    """

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        modulations = len(MODULATIONS_HZ)
        self.groups = {
            "loud_deviation": _CEPSTRA,
            "deviation": _CEPSTRA,
            "speed": _CEPSTRA,
            "log_speed": _CEPSTRA,
            "band_speed": config.n_mels,
            "loud_skewness": _SKEWED,
            "level": 3,
            "band_modulation": WIDE_BANDS * modulations,
            "modulation": modulations,
            "cepstral_modulation": _MODULATED * modulations,
            "correlation": _CORRELATED * (_CORRELATED - 1) // 2,
        }
        """Names of the groups and their numbers, in the order of the output."""
        order, band = torch.arange(_CEPSTRA)[:, None], torch.arange(config.n_mels)
        cosines = (math.pi / config.n_mels * (band + 0.5) * order).cos()
        filters = _modulation_filters(config.sample_rate / config.hop_length)
        first, second = torch.triu_indices(_CORRELATED, _CORRELATED, offset=1)
        # Not persistent: computed from the config, never learnt.
        self.register_buffer("cosines", cosines * math.sqrt(2 / config.n_mels), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("pairs", first * _CORRELATED + second, persistent=False)
        self.cosines: Tensor
        self.filters: Tensor
        self.pairs: Tensor

    @property
    def width(self) -> int:
        """Numbers per clip."""
        return sum(self.groups.values())

    def forward(self, log_mel: Tensor, mask: Tensor) -> Tensor:
        """Compute the functionals of a padded batch.

        Args:
            log_mel: power before normalisation, shape ``(batch, 1, n_mels, frames)``; values in
                the padding do not matter.
            mask: ones on unpadded frames, shape ``(batch, 1, 1, frames)``; one at least per clip.

        Returns:
            Shape ``(batch, width)``.
        """
        # (batch, n_mels, frames), (batch, 1, frames), (batch, 1)
        bands, mask = log_mel[:, 0], mask[:, 0]
        count = mask.sum(2)
        cepstra = self.cosines @ bands
        loud = _loudness_weights(bands, mask)
        around = cepstra - (loud * cepstra).sum(2, keepdim=True)
        loud_deviation = ((loud * around.square()).sum(2) + 1e-4).sqrt()
        centred = _centre(cepstra, mask, count)
        deviation = (centred.square().sum(2) / count + 1e-4).sqrt()
        speed = _mean_step(cepstra, mask, 2)
        wide = bands.reshape(-1, WIDE_BANDS, bands.shape[1] // WIDE_BANDS, bands.shape[2]).mean(2)
        power = self._modulation(
            torch.cat([_centre(wide, mask, count), centred[:, :_MODULATED]], dim=1), mask, count
        )
        wide_power = power[:, :WIDE_BANDS]
        skewed = around[:, :_SKEWED] / (loud_deviation[:, :_SKEWED, None] + _DEVIATION_FLOOR)
        return torch.cat(
            [
                loud_deviation,
                deviation,
                speed,
                (speed + 0.05).log(),
                _mean_step(bands, mask, 1),
                (loud * (skewed * skewed * skewed)).sum(2),
                _level(centred[:, :1], deviation[:, :1], count),
                (loud.amax(2) * count).log(),
                (wide_power + _MODULATION_FLOOR).log().flatten(1),
                (wide_power.mean(1) + _MODULATION_FLOOR).log(),
                (power[:, WIDE_BANDS:] + _MODULATION_FLOOR).log().flatten(1),
                self._correlation(centred[:, :_CORRELATED], deviation[:, :_CORRELATED], count),
            ],
            dim=1,
        )

    def _modulation(self, contours: Tensor, mask: Tensor, count: Tensor) -> Tensor:
        """Mean power around each rate, ``(batch, contours, rates)``, of centred contours."""
        rates, frames = len(MODULATIONS_HZ), contours.shape[2]
        filtered = F.conv1d(
            contours.reshape(-1, 1, frames), self.filters, padding=self.filters.shape[2] // 2
        )
        # (batch, contours, rates, cosine and sine, frames)
        filtered = filtered.reshape(-1, contours.shape[1], rates, 2, frames)
        power = filtered.square().sum(3) * mask[:, :, None]
        return power.sum(3) / count[..., None]

    def _correlation(self, centred: Tensor, deviation: Tensor, count: Tensor) -> Tensor:
        covariance = centred @ centred.transpose(1, 2) / count[..., None]
        floored = deviation + _DEVIATION_FLOOR
        correlation = covariance / (floored[:, :, None] * floored[:, None])
        return correlation.flatten(1)[:, self.pairs]


def _modulation_filters(frame_rate_hz: float) -> Tensor:
    """Cosine and sine for each rate, shape ``(2 * rates, 1, taps)``."""
    half = int(_HALF_WINDOW_S * frame_rate_hz)
    window = torch.hann_window(2 * half + 1, periodic=False)
    time_s = torch.arange(-half, half + 1) / frame_rate_hz
    filters = []
    for rate_hz in MODULATIONS_HZ:
        cosine = window * (2 * math.pi * rate_hz * time_s).cos()
        filters.append(cosine - window * cosine.sum() / window.sum())
        filters.append(window * (2 * math.pi * rate_hz * time_s).sin())
    return torch.stack(filters)[:, None]


def _loudness_weights(bands: Tensor, mask: Tensor) -> Tensor:
    """Weights of the frames, large for loud ones, shape ``(batch, 1, frames)``; they sum to 1."""
    energy = (bands.exp().sum(1, keepdim=True) + 1e-3).log()
    top = energy.masked_fill(mask == 0, -1e9).amax(2, keepdim=True)
    weights = torch.sigmoid(2.0 * (energy - top + _LOUD_BELOW_TOP)) * mask
    return weights / weights.sum(2, keepdim=True)


def _centre(contours: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Contours ``(batch, n, frames)`` without their means over the clip; 0 in the padding."""
    mean = (contours * mask).sum(2) / count
    return (contours - mean[..., None]) * mask


def _mean_step(contours: Tensor, mask: Tensor, step: int) -> Tensor:
    """Mean absolute change over ``step`` frames, ``(batch, n)``; 0 where no clip is so long."""
    # padded and shifted rather than cut, so that no tensor is ever empty
    ahead = F.pad(contours, (0, step))[:, :, step:]
    both = mask * F.pad(mask, (0, step))[:, :, step:]
    change = (ahead - contours).abs() * both
    return change.sum(2) / both.sum(2).clamp(min=1.0)


def _level(centred: Tensor, deviation: Tensor, count: Tensor) -> Tensor:
    """Skewness and kurtosis of a contour ``(batch, 1, frames)``: ``(batch, 2)``."""
    standard = centred / (deviation[..., None] + _DEVIATION_FLOOR)
    square = standard * standard
    return torch.cat([(square * standard).sum(2), (square * square).sum(2)], dim=1) / count
