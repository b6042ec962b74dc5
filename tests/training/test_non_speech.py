import numpy as np
import pytest

from nnpm.service.inference.audio.speech import assess
from nnpm.service.inference.audio.waveform import Waveform
from nnpm.training.bundle.parts import golden_clips, voice
from nnpm.training.data.non_speech import non_speech_sounds


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [voice(pitch, 0.5, seed=0) for pitch in (110.0, 200.0, 300.0)]


def test_strange_sounds_are_repeatable_bounded_and_of_four_kinds(clips: list[np.ndarray]) -> None:
    sounds = non_speech_sounds(3, clips, count=8)
    again = non_speech_sounds(3, clips, count=8)
    other = non_speech_sounds(4, clips, count=8)
    assert len(sounds) == 8
    for sound, same, different in zip(sounds, again, other, strict=True):
        assert sound.dtype == np.float32
        assert sound.shape == (48_000,)
        assert np.abs(sound).max() == pytest.approx(0.5, rel=1e-3)
        assert np.array_equal(sound, same)
        assert not np.array_equal(sound, different)
    assert len({sound.tobytes() for sound in sounds}) == 8


def test_babble_is_made_of_very_short_and_of_silent_clips_too() -> None:
    sounds = non_speech_sounds(0, [np.zeros(1, np.float32), np.ones(2, np.float32)], count=4)
    assert all(np.isfinite(sound).all() for sound in sounds)


def test_golden_clips_are_repeatable_and_sound_like_speech() -> None:
    waveform, lengths = golden_clips()
    again, _ = golden_clips()
    assert np.array_equal(waveform, again)
    assert waveform.dtype == np.float32
    assert lengths.tolist() == [16_000, 11_200, 6_400]
    for row, length in zip(waveform, lengths, strict=True):
        assert assess(Waveform(row[:length])).has_speech
        assert not row[length:].any()


def test_a_voice_has_the_pitch_asked_for() -> None:
    sound = voice(200.0, 1.0, seed=0)
    spectrum = np.abs(np.fft.rfft(sound[:8_000] * np.hanning(8_000)))
    strongest_hz = 2 * np.argmax(spectrum)
    harmonic = strongest_hz / 190  # it falls from 200 to 180 Hz in this half
    assert abs(harmonic - round(harmonic)) < 0.1
    assert np.array_equal(sound, voice(200.0, 1.0, seed=0))
    assert not np.array_equal(sound, voice(200.0, 1.0, seed=1))
