"""Fit the rules by which speech detection tells one voice from other sounds.

    make detector DATA=CORPORA

Voices are clips of the development corpora in seven kinds of recording. Other sounds are babble
and breath, made by code that ``benchmarks.detectors`` does not use.
The rules are written into ``service/inference/audio/speech.py``; ``benchmarks.detectors`` then
measures them on other corpora and on other sounds.
"""

import argparse
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.corpora import clips_by_corpus
from benchmarks.provenance import ROOT
from nnpm.service.inference.audio import speech
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ as RATE
from nnpm.service.inference.audio.waveform import Waveform
from nnpm.service.inference.turns import FRAME, active_frames, context, pieces_of_sound

Samples = NDArray[np.floating]

CORPORA = ("banglaser", "crema", "hindi", "nemo", "ravdess")
LOST = {"babble": 0.006, "breath": 0.001}
"""The kinds of other sound, and the share of the frames of voices that the rule may lose."""
RIDGE = 0.1


@dataclass(frozen=True, slots=True)
class Example:
    """A piece of sound between two pauses.

    Attributes:
        kind: ``voice``, or a kind of :data:`LOST`.
        features: what the rules are about.
        num_frames: its weight.
    """

    kind: str
    features: NDArray[np.float32]
    num_frames: int


def _seconds(samples: int) -> Samples:
    return np.arange(samples) / RATE


def _coloured(rng: np.random.Generator, length: int, slope: float) -> Samples:
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** (slope / 2)
    sound: Samples = np.fft.irfft(spectrum, length)
    return sound / sound.std()


def _band(rng: np.random.Generator, length: int, low_hz: float, high_hz: float) -> Samples:
    spectrum = np.fft.rfft(rng.standard_normal(length))
    distance = np.fft.rfftfreq(length, 1 / RATE) - (low_hz + high_hz) / 2
    sound: Samples = np.fft.irfft(
        spectrum * np.exp(-0.5 * (distance / (high_hz - low_hz) * 2) ** 2), length
    )
    return sound / sound.std()


def babble(
    rng: np.random.Generator, duration_s: float, voices: Sequence[Samples], count: int
) -> Samples:
    """So many people who talk at once, some nearer than others."""
    length = round(duration_s * RATE)
    sound = np.zeros(length)
    for _ in range(count):
        said: list[Samples] = []
        while sum(map(len, said)) < length:
            voice = voices[rng.integers(len(voices))]
            said.append(voice / (np.sqrt(np.mean(voice**2)) + 1e-6))
            said.append(np.zeros(round(rng.choice([0.0, 0.1, 0.4]) * RATE)))
        joined = np.concatenate(said)
        level = 10 ** (rng.uniform(-8, 0) / 20)
        sound += level * np.roll(joined, rng.integers(len(joined)))[:length]
    return _in_room(rng, sound, 6.0) if rng.random() < 0.3 else sound


def breath(rng: np.random.Generator, duration_s: float) -> Samples:
    """Breaths, coughs and clothes: bursts of noise that swell and fade."""
    sound, at_s = np.zeros(round(duration_s * RATE)), rng.uniform(0.1, 0.5)
    while at_s < duration_s - 1.2:
        count, start = round(rng.uniform(0.3, 1.1) * RATE), round(at_s * RATE)
        burst = _band(rng, count, rng.uniform(200, 800), rng.uniform(1500, 5000))
        swell = np.sin(np.pi * np.arange(count) / count) ** rng.uniform(0.7, 2)
        sound[start : start + count] += burst * swell
        at_s += count / RATE + rng.uniform(0.3, 1.5)
    return sound


def _in_room(rng: np.random.Generator, sound: Samples, direct: float) -> Samples:
    """Reverberate; the higher ``direct``, the nearer."""
    echo = rng.standard_normal(4096) * np.exp(-np.arange(4096) / rng.uniform(300, 1000))
    echo[0] = direct
    size = 1 << (len(sound) + 4096).bit_length()
    wet: Samples = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(echo, size))[: len(sound)]
    return wet / np.sqrt(np.sum(echo**2))


def by_telephone(sound: Samples) -> Samples:
    """What a line of 8 kHz leaves."""
    half = soxr.resample(sound, RATE, RATE // 2)
    return np.resize(soxr.resample(half, RATE // 2, RATE), len(sound))


def through_mp3(sound: Samples) -> Samples:
    """As MP3."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(sound, -1, 1), RATE, format="MP3")
    file.seek(0)
    decoded = soundfile.read(file)[0]
    return np.resize(decoded, len(sound))


def voices_in_use(
    rng: np.random.Generator, clip: Samples, others: Sequence[Samples]
) -> Iterator[Samples]:
    """One voice as it is recorded: clean, by telephone, noisy, too loud, far away, with others."""
    sound = np.pad(0.3 * clip / (np.abs(clip).max() + 1e-6), RATE)
    rms, length = np.sqrt(np.mean(sound[RATE:-RATE] ** 2)), len(sound)

    def beside(other: Samples, least_db: float, most_db: float) -> Samples:
        other = other[:length] / (np.sqrt(np.mean(other**2)) + 1e-9)
        return other * rms * 10 ** (-rng.uniform(least_db, most_db) / 20)

    def line(level_db: float) -> Samples:
        return 10 ** (level_db / 20) * rng.standard_normal(length)

    yield sound + line(-85)
    yield by_telephone(sound) + line(-55)
    yield sound + beside(_coloured(rng, length, rng.uniform(0, 2)), 10, 20)
    yield np.clip(sound * rng.uniform(3, 8), -1, 1) + line(-60)
    yield _in_room(rng, sound, 25.0) + line(-70)
    overtones = np.outer([50, 150, 250, 350], _seconds(length))
    hum = rng.uniform(0.1, 1, 4) * 0.01 @ np.sin(2 * np.pi * overtones)
    yield through_mp3(rng.uniform(0.2, 1) * sound + hum + 0.02) + line(-75)
    yield sound + beside(babble(rng, length / RATE, others, 8), 12, 20) + line(-80)


def _talk(rng: np.random.Generator, clips: Sequence[Samples]) -> Samples:
    """Clips with pauses between them."""
    parts: list[Samples] = []
    for clip in clips:
        parts += [clip / (np.abs(clip).max() + 1e-6), np.zeros(round(rng.uniform(0.1, 1) * RATE))]
    return np.concatenate(parts[:-1])


def examples(kind: str, sound: Samples) -> Iterator[Example]:
    """The pieces of a sound, as speech detection cuts them."""
    sound = sound[: len(sound) // FRAME * FRAME]
    frames = speech.analyse(Waveform(sound.astype(np.float32)), FRAME)
    for start, end in pieces_of_sound(frames, active_frames(frames)):
        if end - start >= speech.VOICE_FRAMES:
            piece = speech.Frames(frames.levels[start:end], frames.bands[start:end])
            yield Example(
                kind, speech.describe(piece, frames.levels[context(start, end)]), end - start
            )


def collect(data: Path, num_clips: int, num_sounds: int, seed: int) -> list[Example]:
    """Make voices and other sounds, and describe their pieces."""
    rng = np.random.default_rng(seed)
    voices, found = [], []
    for clips in clips_by_corpus(data):
        if clips[0].relative_to(data.resolve()).parts[0] in CORPORA:
            decoded = [decode(clip).waveforms[0].samples for clip in clips[:num_clips]]
            voices.append([one[: 8 * RATE // 1600 * 1600] for one in decoded if len(one) > FRAME])
    for own in voices:
        for first in range(0, len(own), 3):
            for sound in voices_in_use(rng, _talk(rng, own[first : first + 3]), own):
                found += examples("voice", sound)
    makers: dict[str, Callable[[float, int], Samples]] = {
        "babble": lambda s, n: babble(rng, s, voices[n % len(voices)], int(rng.integers(6, 17))),
        "breath": lambda s, _: breath(rng, s),
    }
    for number in range(num_sounds):
        for kind, make in makers.items():
            sound = make(round(rng.uniform(3, 8), 1), number)
            sound = sound * rng.uniform(0.02, 0.6) / (np.abs(sound).max() + 1e-9)
            sound = np.pad(sound, RATE) if rng.random() < 0.4 else sound
            sound = by_telephone(sound) if rng.random() < 0.5 else sound
            sound = sound + 10 ** (rng.uniform(-90, -50) / 20) * rng.standard_normal(len(sound))
            sound = through_mp3(sound) if rng.random() < 0.1 else sound
            found += examples(kind, sound)
    return found


def fit(found: Sequence[Example]) -> NDArray[np.float64]:
    """One rule per kind of other sound: an offset and a weight per feature; positive is a voice.

    Each is a logistic regression in which both sides weigh the same; its offset is then moved to
    where it loses the share :data:`LOST` of the voices.
    """
    features = np.array([one.features for one in found], float)
    frames = np.array([one.num_frames for one in found], float)
    kinds = np.array([one.kind for one in found])
    is_voice = kinds == "voice"
    rules = []
    for kind in LOST:
        used = is_voice | (kinds == kind)
        mean, scale = features[used].mean(axis=0), features[used].std(axis=0) + 1e-6
        weights = frames / np.where(is_voice, frames[is_voice].sum(), frames[kinds == kind].sum())
        plane = _logistic((features[used] - mean) / scale, is_voice[used], weights[used])
        scores = (features[is_voice] - mean) / scale @ plane
        order = np.argsort(scores)
        total = np.cumsum(frames[is_voice][order])
        least = scores[order][np.searchsorted(total, LOST[kind] * total[-1])]
        rules.append([-least - mean / scale @ plane + 1e-3, *(plane / scale)])
    return np.array(rules)


def _logistic(features: Samples, truth: NDArray[np.bool_], weights: Samples) -> NDArray[np.float64]:
    """Weights of a ridge regression, by Newton's method; the offset is left out."""
    padded = np.column_stack([features, np.ones(len(features))])
    ridge = np.diag([RIDGE] * features.shape[1] + [1e-9])
    plane = np.zeros(padded.shape[1])
    for _ in range(30):
        share = 1 / (1 + np.exp(-np.clip(padded @ plane, -30, 30)))
        gradient = padded.T @ (weights * (share - truth)) + ridge @ plane
        curvature = (padded.T * (weights * share * (1 - share))) @ padded + ridge
        plane -= np.linalg.solve(curvature, gradient)
    found: NDArray[np.float64] = plane[:-1]
    return found


def write_rules(rules: NDArray[np.float64]) -> None:
    """Write them into the module that detects speech."""
    path = ROOT / "service/inference/audio/speech.py"
    rows = "\n".join(
        textwrap.fill(" ".join(f"{value:.3g}" for value in rule), 99) for rule in rules
    )
    pattern = r'(_RULES = """\n).*?(""")'
    text, count = re.subn(
        pattern,
        lambda match: f"{match[1]}{rows}\n{match[2]}",
        path.read_text("utf-8"),
        flags=re.DOTALL,
    )
    assert count == 1
    path.write_text(text, "utf-8")


def main() -> None:
    """Fit, say what passes, and write the rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=30, help="of each corpus")
    parser.add_argument("--sounds", type=int, default=120, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = collect(args.data, args.clips, args.sounds, args.seed)
    rules = fit(found)
    for kind in ("voice", *LOST):
        own = [one for one in found if one.kind == kind]
        passes = [bool((rules[:, 1:] @ one.features + rules[:, 0] >= 0).all()) for one in own]
        share = np.average(passes, weights=[one.num_frames for one in own])
        print(f"{kind}: {len(own)} pieces, {share:.3f} of the frames pass")
    write_rules(rules)


if __name__ == "__main__":
    main()
