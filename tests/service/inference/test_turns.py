"""Turns found in calls made by code."""

from itertools import pairwise

import numpy as np
import pytest
import soxr

from nnpm.service.inference.audio.waveform import Waveform
from nnpm.service.inference.turns import LONGEST_S, Turn, find_turns
from tests.support.calls import Line, Samples, two_party_call
from tests.support.sounds import speechlike

RATE = 16_000
WINDOW = 6 * RATE


def turns_of(*channels: Samples, rate: int = RATE) -> list[list[tuple[float, float]]]:
    """Start and end of each turn in seconds, by channel."""
    waveforms = [Waveform(soxr.resample(one, rate, RATE).astype(np.float32)) for one in channels]
    return [
        [(one.start / RATE, one.end / RATE) for one in turns]
        for turns in find_turns(waveforms, WINDOW)
    ]


def talk(*parts: float, seed: int = 0) -> Samples:
    """Speech of so many seconds; a negative number is silence."""
    return np.concatenate(
        [
            speechlike(part, seed=seed + n) if part > 0 else np.zeros(round(-part * RATE))
            for n, part in enumerate(parts)
        ]
    )


def clips(rate: int, *seconds: float) -> list[Samples]:
    return [speechlike(one, rate, seed=n) for n, one in enumerate(seconds)]


CALLS = {
    "silent line": (16_000, Line()),
    "telephone": (8_000, Line(noise_db=-60)),
    "noise": (16_000, Line(noise_db=-40)),
    "MP3": (16_000, Line(mp3=True)),
    "overlaps": (16_000, Line(overlap=0.5, noise_db=-70)),
    "echo": (16_000, Line(echo_db=-22, noise_db=-70)),
    "comfort noise": (16_000, Line(noise_db=-50, comfort=True)),
    "one far": (16_000, Line(far_db=-20, echo_db=-25, noise_db=-75)),
    "hum, offset, clipping": (16_000, Line(hum_db=-40, offset=0.02, gain_db=10)),
    "all of it": (8_000, Line(overlap=0.3, noise_db=-55, echo_db=-25, mp3=True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_turns_of_a_call_are_found(name: str) -> None:
    rate, line = CALLS[name]
    lengths = (2.0, 3.0, 0.6, 2.5, 4.0, 1.2, 5.0, 0.8, 2.2, 3.4)
    call, true_turns = two_party_call(clips(rate, *lengths), rate, line, seed=3)
    found = turns_of(call[:, 0], call[:, 1], rate=rate)
    for true in true_turns:
        covering = [
            (start, end) for start, end in found[true.channel] if start <= true.middle_s < end
        ]
        assert len(covering) == 1, true
    for channel, spans in enumerate(found):
        own = [one for one in true_turns if one.channel == channel]
        for start, end in spans:
            assert any(one.start_s < end and start < one.end_s for one in own), (start, end)
            inside_s = sum(max(0.0, min(end, one.end_s) - max(start, one.start_s)) for one in own)
            assert inside_s > 0.75 * (end - start)


def test_other_sounds_are_no_turns() -> None:
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.standard_normal(20 * RATE)
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(20 * RATE) / RATE)
    clicks = np.zeros(20 * RATE)
    clicks[:: 2 * RATE] = 0.9
    for sound in (np.zeros(20 * RATE), noise, tone, tone + 0.1 * noise, clicks):
        assert turns_of(sound) == [[]]


def test_music_and_dialling_are_no_turns_and_a_voice_is() -> None:
    rng, time_s = np.random.default_rng(0), np.arange(10 * RATE) / RATE
    notes = np.zeros(10 * RATE)
    for start in range(0, 10 * RATE, RATE // 2):
        count = min(RATE, len(notes) - start)
        for pitch in 220 * 2 ** (rng.choice([0, 4, 7, 12], 3) / 12):
            after_s = time_s[:count]
            notes[start : start + count] += np.sin(2 * np.pi * pitch * after_s) * np.exp(-after_s)
    digits = 0.1 * np.sin(2 * np.pi * 697 * time_s) * (time_s % 0.3 < 0.15)
    digits += 0.1 * np.sin(2 * np.pi * 1209 * time_s) * (time_s % 0.3 < 0.15)
    spectrum = np.fft.rfft(0.1 * rng.standard_normal(10 * RATE))
    gusts = np.fft.irfft(spectrum) * (1.1 + np.sin(2 * np.pi * 0.4 * time_s))
    for sound in (0.05 * notes, digits, gusts):
        (found,) = turns_of(sound + 1e-4 * rng.standard_normal(10 * RATE))
        assert sum(end - start for start, end in found) < 1
    ((voice,),) = turns_of(talk(-1.0, 8.0, -1.0))
    assert voice == pytest.approx((1, 9), abs=0.3)


def test_a_crowd_is_no_turn_and_each_of_its_voices_is() -> None:
    """Of a crowd that talks on; its voices are heard one by one where each pauses."""
    voices = [talk(*[1.1 + 0.1 * n, -0.35] * 10, seed=n)[: 12 * RATE] for n in range(12)]
    crowd = sum(np.roll(one, 3_001 * n) for n, one in enumerate(voices))
    (found,) = turns_of(0.1 * crowd + 1e-4 * np.random.default_rng(0).standard_normal(12 * RATE))
    assert sum(end - start for start, end in found) < 1.2
    for one in voices[::4]:
        (found,) = turns_of(one)
        assert sum(end - start for start, end in found) > 7


def test_a_short_pause_of_one_speaker_is_shared() -> None:
    first, second = turns_of(talk(4.0, -0.5, 4.0))[0]
    assert first[1] == pytest.approx(second[0], abs=0.03)
    assert 4.0 < first[1] < 4.4
    first, second = turns_of(talk(4.0, -0.9, 4.0))[0]
    assert second[0] - first[1] > 0.6


def test_a_pause_ends_a_turn_and_a_short_one_does_not() -> None:
    assert len(turns_of(talk(4.0, -0.2, 4.0))[0]) == 1
    (first, second) = turns_of(talk(4.0, -0.8, 4.0))[0]
    assert first == pytest.approx((0, 4.0), abs=0.25)
    assert second == pytest.approx((4.8, 8.8), abs=0.25)


def test_short_turns_of_one_speaker_are_joined_without_their_pause() -> None:
    ((turn,),) = find_turns([Waveform(talk(0.8, -0.4, 0.8).astype(np.float32))], WINDOW)
    assert len(turn.parts) == 2
    assert turn.num_samples < 1.8 * RATE < turn.end - turn.start
    assert len(turn.samples(Waveform(np.zeros(3 * RATE, np.float32)))) == turn.num_samples


def test_turns_are_not_joined_when_somebody_else_speaks_between() -> None:
    mine = talk(0.8, -0.4, 0.8, -0.3)
    other = talk(-0.8, 0.4, -1.1)
    assert len(turns_of(mine, np.zeros_like(mine))[0]) == 1
    assert len(turns_of(mine, other)[0]) == 2


def test_joined_turns_are_no_longer_than_a_window() -> None:
    turns = find_turns([Waveform(talk(*[0.8, -0.5] * 12).astype(np.float32))], WINDOW)[0]
    assert 2 <= len(turns) <= 6
    assert max(one.num_samples for one in turns) <= WINDOW + RATE


def test_a_long_turn_is_split_at_its_quietest_places() -> None:
    samples = talk(30.0)
    samples[8 * RATE : 8 * RATE + 3_200] *= 1e-3
    samples[16 * RATE : 16 * RATE + 3_200] *= 1e-3
    spans = turns_of(samples)[0]
    assert max(end - start for start, end in spans) <= LONGEST_S + 0.15
    assert all(one[1] <= following[0] for one, following in pairwise(spans))
    assert spans[0][0] < 0.3
    assert spans[-1][1] > 29.7
    borders = [end for _, end in spans[:-1]]
    assert min(abs(one - 8.1) for one in borders) < 0.15
    assert min(abs(one - 16.1) for one in borders) < 0.15


@pytest.mark.parametrize("num_samples", [1, 319, 320, 4_000])
def test_next_to_nothing(num_samples: int) -> None:
    assert len(turns_of(talk(1.0)[:num_samples])[0]) <= 1


def test_a_quiet_speaker_beside_a_loud_one() -> None:
    loud, quiet = talk(3.0, -4.0, 3.0), 0.02 * talk(-3.5, 3.0, -3.5, seed=7)
    found = turns_of(loud, quiet)
    assert len(found[1]) == 1
    assert found[1][0] == pytest.approx((3.5, 6.5), abs=0.3)


def test_a_turn_knows_its_ends() -> None:
    turn = Turn(((10, 20), (30, 35)))
    assert (turn.start, turn.end, turn.num_samples) == (10, 35, 15)
