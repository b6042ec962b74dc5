"""Synthetic non-speech sounds, against which the out-of-domain figure is fitted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]

_SECONDS = 3.0


def noise(rng: np.random.Generator, slope: float) -> Floats:
    """Three seconds of noise in gusts; its power falls by ``slope`` times 3 dB per octave."""
    count = int(_SECONDS * SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1.0) ** (slope / 2)
    sound = np.fft.irfft(spectrum, count)
    gusts = np.interp(np.arange(count), np.linspace(0, count, 8), rng.uniform(0.1, 1.0, 8))
    return _unit(sound * gusts)


def chords(rng: np.random.Generator) -> Floats:
    """Three seconds of synthetic music: chords of decaying harmonics over a bass."""
    count = int(_SECONDS * SAMPLE_RATE_HZ)
    time = np.arange(count) / SAMPLE_RATE_HZ
    sound = np.zeros(count)
    beat_s = rng.uniform(0.25, 0.6)
    for beat in range(int(_SECONDS / beat_s) + 1):
        after = time - beat * beat_s
        envelope = np.where(after >= 0, np.exp(-np.maximum(after, 0) / rng.uniform(0.1, 0.6)), 0.0)
        root = 55.0 * 2 ** (rng.integers(0, 36) / 12)
        for semitones in (0, int(rng.choice([3, 4])), 7, -12):
            pitch = root * 2 ** (semitones / 12)
            for harmonic in range(1, 6):
                sound += envelope / harmonic * np.sin(2 * np.pi * pitch * harmonic * time)
    return _unit(sound)


def babble(rng: np.random.Generator, clips: Sequence[Floats]) -> Floats:
    """Three seconds of eight voices at once, drawn from ``clips``."""
    count = int(_SECONDS * SAMPLE_RATE_HZ)
    sound = np.zeros(count)
    for index in rng.choice(len(clips), 8):
        voice = np.resize(clips[index], count)
        sound += np.roll(voice, rng.integers(count)) / (np.abs(voice).max() + 1e-6)
    return _unit(sound)


def tones(rng: np.random.Generator) -> Floats:
    """Three seconds of beeps and sweeps, as of telephones and machines."""
    count = int(_SECONDS * SAMPLE_RATE_HZ)
    time = np.arange(count) / SAMPLE_RATE_HZ
    low, high = rng.uniform(200, 1000), rng.uniform(500, 4000)
    sweep = np.sin(2 * np.pi * np.cumsum(np.linspace(low, high, count)) / SAMPLE_RATE_HZ)
    beeps = np.sin(2 * np.pi * high * time) * (np.sin(2 * np.pi * rng.uniform(0.5, 4) * time) > 0)
    return _unit(sweep * rng.uniform(0, 1) + beeps)


def non_speech_sounds(seed: int, clips: Sequence[Floats], count: int = 160) -> list[Floats]:
    """Make sounds of all kinds: three seconds at 16 kHz each, float32 in [-1, 1].

    Args:
        seed: the same seed gives the same sounds.
        clips: speech, of which babble is made.
        count: a multiple of 4.
    """
    rng = np.random.default_rng(seed)
    sounds: list[Floats] = []
    for index in range(count // 4):
        sounds += [noise(rng, index % 3), chords(rng), babble(rng, clips), tones(rng)]
    return sounds


def _unit(sound: NDArray[np.float64]) -> Floats:
    unit: Floats = (0.5 * sound / (np.abs(sound).max() + 1e-9)).astype(np.float32)
    return unit
