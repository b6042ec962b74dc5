"""Golden clips, synthesised by code: what a bundle must answer wherever it is loaded."""

import numpy as np
from numpy.typing import NDArray

from service.inference.audio import SAMPLE_RATE_HZ

_VOICES = ((120.0, 1.0), (210.0, 0.7), (165.0, 0.4))  # pitch in Hz, seconds


def voice(pitch_hz: float, duration_s: float, seed: int) -> NDArray[np.float32]:
    """A voice-like sound: a gliding pulse train through formants, in syllables, with some breath.

    Args:
        pitch_hz: pitch at the start; it falls by a fifth.
        duration_s: length in seconds.
        seed: of the breath.

    Returns:
        float32 in [-1, 1], shape ``(round(duration_s * 16000),)``.
    """
    time = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch = pitch_hz * (1.0 - 0.2 * time / duration_s)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    sound = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch_hz
        formants = sum(np.exp(-(((frequency - f) / 150.0) ** 2)) for f in (600.0, 1200.0, 2500.0))
        sound += (0.05 + formants) / harmonic * np.sin(harmonic * phase)
    breath = np.random.default_rng(seed).standard_normal(len(time))
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * 4.0 * time)
    sound = syllables * (sound + 0.05 * breath)
    golden: NDArray[np.float32] = (0.5 * sound / np.abs(sound).max()).astype(np.float32)
    return golden


def golden_clips() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three voices of different length as one padded batch: waveforms and lengths."""
    clips = [voice(pitch, seconds, seed) for seed, (pitch, seconds) in enumerate(_VOICES)]
    lengths = np.array([len(clip) for clip in clips], np.int64)
    waveform = np.zeros((len(clips), int(lengths.max())), np.float32)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    return waveform, lengths
