"""Changes of waveforms, each alone, and all of them as they come."""

import numpy as np
import pytest

from nnpm.training.data.augment import Augmentation

OFF = {"resample_p": 0.0, "equaliser_p": 0.0, "telephone_p": 0.0, "room_p": 0.0, "noise_p": 0.0}


def only(**changes: object) -> Augmentation:
    return Augmentation(**(OFF | changes))


@pytest.fixture
def voice() -> np.ndarray:
    time = np.arange(16_000) / 16_000
    return np.sin(2 * np.pi * 200 * time).astype(np.float32) * 0.3


def peak_hz(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))


def band(samples: np.ndarray, low_hz: float, high_hz: float) -> float:
    frequency = np.fft.rfftfreq(len(samples), 1 / 16_000)
    inside = (frequency >= low_hz) & (frequency < high_hz)
    return float(np.square(np.abs(np.fft.rfft(samples)))[inside].sum())


def test_the_generator_decides_and_repeats(voice: np.ndarray) -> None:
    change = Augmentation()
    one, again, other = (change(voice, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert len(one) != len(other) or not np.array_equal(one, other)


@pytest.mark.parametrize("length", [1, 2, 100, 8_000])
def test_any_length_stays_finite_and_about_as_long(length: int) -> None:
    clip = np.full(length, 0.2, np.float32)
    for seed in range(30):
        changed = Augmentation()(clip, np.random.default_rng(seed))
        assert changed.dtype == np.float32
        assert changed.flags.c_contiguous
        assert np.isfinite(changed).all()
        assert 0.87 * length - 2 <= len(changed) <= 1.15 * length + 2


def test_silence_stays_silence() -> None:
    for seed in range(20):
        changed = Augmentation()(np.zeros(4_000, np.float32), np.random.default_rng(seed))
        assert np.abs(changed).max() == 0


def test_without_changes_a_clip_is_as_it_was(voice: np.ndarray) -> None:
    assert np.array_equal(only()(voice, np.random.default_rng(0)), voice)


def test_resampling_moves_pitch_and_tempo_together(voice: np.ndarray) -> None:
    changed = only(resample_p=1.0, resample=(1.1, 1.1))(voice, np.random.default_rng(0))
    assert len(changed) == pytest.approx(17_600, abs=2)
    assert peak_hz(changed) == pytest.approx(200 / 1.1, abs=1.5)


def test_the_equaliser_stays_within_its_gain() -> None:
    noise = np.random.default_rng(3).standard_normal(16_000).astype(np.float32)
    changed = only(equaliser_p=1.0, equaliser_db=6.0)(noise, np.random.default_rng(0))
    gain = np.abs(np.fft.rfft(changed)) / np.abs(np.fft.rfft(noise))
    assert 10 ** (-6 / 20) - 1e-3 <= gain[1:-1].min() < gain[1:-1].max() <= 10 ** (6 / 20) + 1e-3


def test_the_telephone_keeps_its_band_alone() -> None:
    noise = np.random.default_rng(3).standard_normal(16_000).astype(np.float32)
    telephone = only(equaliser_p=1.0, equaliser_db=0.0, telephone_p=1.0)
    changed = telephone(noise, np.random.default_rng(0))
    assert band(changed, 400, 2_900) == pytest.approx(band(noise, 400, 2_900), rel=1e-3)
    assert band(changed, 0, 140) + band(changed, 3_950, 8_001) < 1e-6 * band(changed, 400, 2_900)


def test_a_room_follows_the_direct_sound() -> None:
    click = np.zeros(16_000, np.float32)
    click[4_000] = 1.0
    changed = only(room_p=1.0)(click, np.random.default_rng(0))
    assert np.abs(changed[:4_000]).max() < 1e-5
    assert changed[4_000] == pytest.approx(1.0, abs=1e-4)
    tail = np.square(changed[4_001:]).sum()
    assert 0.1**2 * 0.5 < tail < 0.6**2 * 1.01
    assert np.square(changed[4_000 + 8_001 :]).sum() < 1e-6


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_ratio_that_was_asked_for(voice: np.ndarray, snr_db: float) -> None:
    change = only(noise_p=1.0, noise_snr_db=(snr_db, snr_db))
    noise = change(voice, np.random.default_rng(0)) - voice
    found = 10 * np.log10(np.square(voice).mean() / np.square(noise).mean())
    assert found == pytest.approx(snr_db, abs=0.05)
