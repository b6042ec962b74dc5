"""An hour of telephone made of corpus clips, pauses and hold music, with the truth beside it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpora import clips_by_corpus
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]
Sound = Literal["speech", "silence", "music"]

_LINE_DB = -62.0  # the noise of the line, under everything
_BEATS_PER_MINUTE = 96
# Semitones over A; the four chords that so much hold music is made of.
_CHORDS = ((0, 4, 7), (-3, 0, 4), (-7, -3, 0), (-5, -1, 2))


@dataclass(frozen=True)
class Section:
    """What one channel holds from start to end, in seconds."""

    start_s: float
    end_s: float
    channel: int
    sound: Sound


def hold_music(duration_s: float, seed: int) -> Floats:
    """Broken chords, a bass, a melody and brushes on a drum, at 16 kHz, peak 0.3."""
    rng = np.random.default_rng(seed)
    num_samples = round(duration_s * SAMPLE_RATE_HZ)
    sound = np.zeros(num_samples + 4 * SAMPLE_RATE_HZ)
    step_s = 60 / _BEATS_PER_MINUTE / 2  # quavers
    key = rng.integers(-4, 5)
    for step in range(int(duration_s / step_s)):
        chord = _CHORDS[step // 8 % 4]
        at = round(step * step_s * SAMPLE_RATE_HZ)
        _add(sound, at, _note(220, key + chord[step % 3], 0.8, 0.5))
        if step % 4 == 0:
            _add(sound, at, 1.2 * _note(55, key + chord[0], 1.6, 1.0))
        if rng.random() < 0.4:
            _add(sound, at, 0.8 * _note(440, key + chord[rng.integers(3)], 1.0, 0.7))
        if step % 2:
            brush = rng.standard_normal(1_600) * np.exp(-np.arange(1_600) / 300)
            _add(sound, at, 0.3 * brush)
    sound = sound[:num_samples]
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def build(corpora: Path, duration_s: float, seed: int) -> tuple[Floats, list[Section]]:
    """Two people in turn, each on a channel of their own, with pauses, silences and hold music.

    Args:
        corpora: folder of corpora with a metadata.csv each.
        duration_s: of the call.
        seed: of clips and order.

    Returns:
        Samples at 16 kHz of shape ``(frames, 2)``, and what each channel holds where. Music is
        on both channels, and pauses of less than a second between two clips count as speech.
    """
    draw = random.Random(seed)
    clips = _clips(corpora)
    draw.shuffle(clips)
    num_frames = round(duration_s * SAMPLE_RATE_HZ)
    rng = np.random.default_rng(seed)
    call = rng.standard_normal((num_frames, 2)).astype(np.float32) * 10 ** (_LINE_DB / 20)
    truth: list[Section] = []
    position, speaker, clip = 0, 0, 0
    while position < num_frames:
        kind = draw.random()
        if kind < 0.06:
            music = hold_music(draw.uniform(40, 120), seed=len(truth))
            end = min(position + len(music), num_frames)
            call[position:end] += music[: end - position, None]
            truth += [_section(position, end, channel, "music") for channel in (0, 1)]
        elif kind < 0.16:
            end = min(position + round(draw.uniform(8, 40) * SAMPLE_RATE_HZ), num_frames)
            truth += [_section(position, end, channel, "silence") for channel in (0, 1)]
        else:
            end = position
            for _ in range(draw.randint(1, 6)):
                samples = _voice(clips[clip % len(clips)])[: max(0, num_frames - end)]
                clip += 1
                call[end : end + len(samples), speaker] += samples
                end += len(samples) + round(draw.uniform(0.1, 0.9) * SAMPLE_RATE_HZ)
            end = min(end, num_frames)
            truth.append(_section(position, end, speaker, "speech"))
            truth.append(_section(position, end, 1 - speaker, "silence"))
            speaker = 1 - speaker
        position = end
    return np.clip(call, -1, 1), truth


def holds(
    truth: Sequence[Section], start_s: float, end_s: float, channel: int | None
) -> set[Sound]:
    """What a window holds, on one channel or (None) on the mean of both."""
    return {
        one.sound
        for one in truth
        if one.start_s < end_s and start_s < one.end_s and channel in (None, one.channel)
    }


def _clips(corpora: Path) -> list[Path]:
    return [clip for clips in clips_by_corpus(corpora) for clip in clips[:200]]


def _voice(path: Path) -> Floats:
    samples = decode(path).waveforms[0].samples
    voice: Floats = samples * np.float32(0.25 / max(float(np.abs(samples).max()), 1e-3))
    return voice


def _section(start: int, end: int, channel: int, sound: Sound) -> Section:
    return Section(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, channel, sound)


def _note(base_hz: float, semitones: int, duration_s: float, decay_s: float) -> NDArray[np.float64]:
    time = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = base_hz * 2 ** (semitones / 12)
    tone = sum(np.sin(2 * np.pi * k * pitch_hz * time) / k**1.5 for k in range(1, 6))
    attack = np.minimum(1.0, time / 0.01)
    note: NDArray[np.float64] = tone * attack * np.exp(-time / decay_s)
    return note


def _add(sound: NDArray[np.float64], at: int, note: NDArray[np.float64]) -> None:
    end = min(len(sound), at + len(note))
    sound[at:end] += note[: end - at]
