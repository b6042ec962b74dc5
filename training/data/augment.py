"""Augmentation of waveforms: voice, microphone, room and noise, drawn anew for every clip."""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ

Samples = NDArray[np.float32]

_EQUALISER_HZ = (0.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges and probabilities of the changes; each is made or left out for every clip by itself.

    Attributes:
        resample_p: of another speed, which moves pitch, formants and tempo together.
        resample: smallest and largest factor of the duration.
        equaliser_p: of a random smooth equaliser.
        equaliser_db: largest gain or loss of its knots.
        telephone_p: of a telephone's band, among clips with an equaliser.
        room_p: of a room's echo.
        noise_p: of coloured noise.
        noise_snr_db: smallest and largest signal-to-noise ratio.

    References:
        Latif et al. and others find that waveform changes help across corpora most; strong changes
        of pitch destroy labels (docs/research/method.md), so that two semitones are the most.
    """

    resample_p: float = 0.5
    resample: tuple[float, float] = (0.88, 1.14)
    equaliser_p: float = 0.5
    equaliser_db: float = 9.0
    telephone_p: float = 0.35
    room_p: float = 0.25
    noise_p: float = 0.5
    noise_snr_db: tuple[float, float] = (3.0, 35.0)

    def __call__(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Change one clip.

        Args:
            samples: at 16 kHz, shape ``(num_samples,)``, at least one.
            rng: draws what is changed, and how.

        Returns:
            As many samples, or up to an eighth more or fewer.

        Examples:
            >>> clip = np.sin(np.arange(16_000, dtype=np.float32) / 20)
            >>> changed = Augmentation()(clip, np.random.default_rng(0))
            >>> changed.dtype.name, 14_000 < len(changed) < 18_300
            ('float32', True)
        """
        if rng.random() < self.resample_p:
            factor = rng.uniform(*self.resample)
            samples = soxr.resample(samples, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * factor, quality="LQ")
        if rng.random() < self.equaliser_p:
            samples = self._equalise(samples, rng)
        if rng.random() < self.room_p:
            samples = _echo(samples, rng)
        if rng.random() < self.noise_p:
            samples = _add_noise(samples, rng.uniform(*self.noise_snr_db), rng)
        return np.ascontiguousarray(samples, np.float32)

    def _equalise(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """A smooth equaliser, and for some clips the band of a telephone."""
        spectrum = np.fft.rfft(samples)
        frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ)
        knots = rng.uniform(-self.equaliser_db, self.equaliser_db, len(_EQUALISER_HZ))
        gain = 10.0 ** (np.interp(frequency, _EQUALISER_HZ, knots) / 20.0)
        if rng.random() < self.telephone_p:
            low, high = rng.uniform(150.0, 350.0), rng.uniform(3000.0, 3900.0)
            gain = gain * ((frequency > low) & (frequency < high))
        return np.fft.irfft(spectrum * gain, len(samples)).astype(np.float32)


def _echo(samples: Samples, rng: np.random.Generator) -> Samples:
    """A room as exponentially decaying noise after the direct sound, 0.1 to 0.5 s to -60 dB."""
    length = round(rng.uniform(0.1, 0.5) * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(length) * 10.0 ** (-3.0 * np.arange(length) / length)
    tail *= rng.uniform(0.1, 0.6) / np.linalg.norm(tail)
    tail[0] = 1.0
    size = 1 << (len(samples) + length).bit_length()
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(tail, size)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def _add_noise(samples: Samples, snr_db: float, rng: np.random.Generator) -> Samples:
    """Noise between white and pink in colour, at a signal-to-noise ratio over the whole clip."""
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    spectrum *= np.arange(1, len(spectrum) + 1) ** -rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(spectrum, len(samples))
    power = np.square(samples).mean() / max(float(np.square(noise).mean()), 1e-12)
    scaled = noise * np.sqrt(power * 10.0 ** (-snr_db / 10.0))
    noisy: Samples = (samples + scaled).astype(np.float32)
    return noisy
