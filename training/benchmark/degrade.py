"""What a line or a room does to a recording: telephone band and codec, and added noise."""

import hashlib
from collections.abc import Callable

import numpy as np
import soxr
from numpy.typing import NDArray

from service.inference.audio import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]

NOISE_DB = 10.0
"""Speech over noise, in power."""

_NARROW_HZ = 8_000
_MU = 255.0
_LEVELS = 127


def telephone(samples: Floats) -> Floats:
    """Narrow band of a telephone: down to 8 kHz and mu-law (ITU-T G.711), and back; peak 1.

    Args:
        samples: float32 at 16 kHz, shape ``(num_samples,)``.
    """
    peak = max(1e-6, float(np.abs(samples).max(initial=0.0)))
    narrow = soxr.resample(samples / peak, SAMPLE_RATE_HZ, _NARROW_HZ)
    pressed = np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)
    coded = np.round(pressed * _LEVELS) / _LEVELS
    loud = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(_MU)) / _MU
    return np.asarray(soxr.resample(loud, _NARROW_HZ, SAMPLE_RATE_HZ), np.float32)


def noisy(samples: Floats) -> Floats:
    """Pink noise added at :data:`NOISE_DB`; the same clip has the same noise."""
    seed = int.from_bytes(hashlib.sha256(samples.tobytes()).digest()[:7])
    noise = _pink(np.random.default_rng(seed), len(samples))
    power = float(np.mean(samples.astype(np.float64) ** 2))
    scale = np.sqrt(power / (np.mean(noise**2) + 1e-12) / 10 ** (NOISE_DB / 10))
    return np.asarray(samples + scale * noise, np.float32)


def _recorded(samples: Floats) -> Floats:
    return samples


def _pink(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Noise whose power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0))
    return np.fft.irfft(spectrum, count)


DEGRADATIONS: dict[str, Callable[[Floats], Floats]] = {
    "recorded": _recorded,
    "telephone": telephone,
    "noise": noisy,
}
"""By name; the first changes nothing."""
