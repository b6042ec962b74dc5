import csv
import random
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.speech import _tenth, assess, trim_edges
from nnpm.service.inference.audio.waveform import Waveform
from tests.support.sounds import speechlike

RATE = 16_000


def waveform(samples: np.ndarray) -> Waveform:
    return Waveform(samples.astype(np.float32))


def coloured_noise(exponent: float, duration_s: float = 3.0, seed: int = 0) -> np.ndarray:
    num_samples = round(duration_s * RATE)
    frequency = np.fft.rfftfreq(num_samples)
    frequency[0] = frequency[1]
    white = np.random.default_rng(seed).standard_normal(num_samples)
    noise = np.fft.irfft(np.fft.rfft(white) / frequency**exponent, num_samples)
    return 0.5 * noise / np.abs(noise).max()


def tone(hz: float, duration_s: float = 3.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(duration_s * RATE)) / RATE)


NOT_SPEECH = {
    "silence": np.zeros(48_000),
    "offset": np.full(48_000, 0.3),
    "dither": 3e-5 * np.random.default_rng(0).standard_normal(48_000),
    "white noise": coloured_noise(0),
    "pink noise": coloured_noise(0.5),
    "brown noise": coloured_noise(1),
    "half a second of noise": coloured_noise(0.5, 0.5),
    "a minute of noise": coloured_noise(0.5, 60),
    "tone": tone(1_000),
    "odd tone": tone(217.3),
    "mains at 50 Hz": tone(50),
    "mains at 60 Hz": tone(60) + tone(120) / 2 + tone(180) / 3,
    "square": np.sign(tone(131)) * 0.3,
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_silence_and_steady_sounds_are_not_speech(name: str) -> None:
    clip = waveform(NOT_SPEECH[name])
    quality = assess(clip)
    assert not quality.has_speech
    assert quality.speech_ratio == quality.speech_end_s == 0
    assert len(trim_edges(clip).samples) == len(clip.samples)


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01])
def test_modulated_sound_passes_loud_or_quiet(gain: float) -> None:
    assert assess(waveform(gain * speechlike())).has_speech


def test_speech_in_noise_passes() -> None:
    speech = speechlike(3)
    noise = np.random.default_rng(0).standard_normal(len(speech))
    noise *= speech.std() * 10 ** (-10 / 20)  # 10 dB below
    assert assess(waveform(speech + noise)).has_speech


def test_a_second_of_speech_in_a_silent_minute_is_found() -> None:
    samples = np.zeros(60 * RATE)
    samples[20 * RATE : 21 * RATE] = speechlike(1)
    quality = assess(waveform(samples))
    assert quality.has_speech
    assert 20 <= quality.speech_start_s < quality.speech_end_s <= 21
    assert quality.speech_ratio < 0.02


def test_trimming_keeps_the_speech_and_a_margin() -> None:
    speech = speechlike(1)
    silence = np.zeros(RATE)
    trimmed = trim_edges(waveform(np.concatenate([silence, speech, silence])))
    assert 0.8 <= trimmed.duration_s <= 1.12
    assert np.sum(trimmed.samples**2) == pytest.approx(np.sum(speech**2), rel=1e-3)


def test_trimming_twice_changes_little() -> None:
    once = trim_edges(waveform(np.concatenate([np.zeros(9_999), speechlike(1), np.zeros(777)])))
    assert trim_edges(once).duration_s == pytest.approx(once.duration_s, abs=0.04)


@pytest.mark.parametrize("num_samples", [1, 100, 319, 320, 321, 1_600])
def test_the_shortest_clips_are_judged_by_level_alone(num_samples: int) -> None:
    assert assess(waveform(np.full(num_samples, 0.0))).has_speech is False
    noise = np.random.default_rng(0).standard_normal(num_samples) * 0.1
    assert assess(waveform(noise)).has_speech is True


@pytest.mark.corpora
def test_every_real_clip_has_speech(corpora: Path) -> None:
    manifests = sorted(corpora.glob("*/metadata.csv"))
    clips = []
    for manifest in manifests:
        with manifest.open(newline="") as file:
            paths = [manifest.parent / row["path"] for row in csv.DictReader(file)]
        clips += random.Random(0).sample(paths, min(40, len(paths)))
    assert clips
    assert [clip for clip in clips if not assess(decode(clip).waveforms[0]).has_speech] == []


@pytest.mark.parametrize("count", [1, 2, 7, 10, 11, 150, 1001])
def test_the_quietest_tenth_is_that_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    assert _tenth(values) == pytest.approx(np.percentile(values, 10), abs=1e-6)
