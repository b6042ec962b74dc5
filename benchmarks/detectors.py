"""How much speech several speech detectors lose, and what share of other sounds they take for it.

    python -m benchmarks.detectors --data CORPORA [--silero silero_vad_16k_op15.onnx]

Speech are clips of the test corpora with silence around them, in several kinds of recording. Its
sounding frames are those at most 15 dB below the loud ones of the clean clip. The other sounds are
made by code, and none of all this is used by ``benchmarks.fit_detector``. WebRTC's detector takes
part if the package ``webrtcvad-wheels`` is installed, Silero's if its graph is given.
"""

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray

from benchmarks.corpora import clips_by_corpus
from benchmarks.make_call import hold_music
from benchmarks.provenance import machine_load, provenance, write
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ as RATE
from nnpm.service.inference.audio.waveform import Waveform
from nnpm.service.inference.turns import find_turns
from nnpm.training.data.non_speech import babble, chords, noise, tones

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Detector = Callable[[Floats], Mask]
Make = Callable[[np.random.Generator], NDArray[np.floating]]

CORPORA = ("ased", "emodb", "emotiontts", "urdu")
FRAME = 160
"""Samples of a frame that is speech or not: 10 ms."""


def ringing(rng: np.random.Generator) -> NDArray[np.floating]:
    """Two seconds of American ringing and a pause, or a second of European ringing."""
    pitches, seconds = ((440, 480), 2) if rng.random() < 0.5 else ((425,), 1)
    time_s = np.arange(seconds * RATE) / RATE
    sound = np.zeros(6 * RATE)
    sound[: len(time_s)] = sum(np.sin(2 * np.pi * pitch * time_s) for pitch in pitches)
    return sound


def dialling(rng: np.random.Generator) -> NDArray[np.floating]:
    """DTMF."""
    sound, at_s = np.zeros(4 * RATE), 0.2
    while at_s < 3.7:
        time_s = np.arange(round(rng.uniform(0.08, 0.2) * RATE)) / RATE
        for pitches in ((697, 770, 852, 941), (1209, 1336, 1477)):
            start = round(at_s * RATE)
            tone = np.sin(2 * np.pi * rng.choice(pitches) * time_s)
            sound[start : start + len(time_s)] += tone
        at_s += len(time_s) / RATE + rng.uniform(0.05, 0.3)
    return sound


def hold_tones(rng: np.random.Generator) -> NDArray[np.floating]:
    """Half a second of a tone every two seconds."""
    time_s = np.arange(8 * RATE) / RATE
    return np.sin(2 * np.pi * rng.choice([400, 440, 1000, 1400]) * time_s) * (time_s % 2 < 0.5)


def breaths(rng: np.random.Generator) -> NDArray[np.floating]:
    """Three breaths: noise around 1 to 2 kHz that swells and fades."""
    sound = np.zeros(6 * RATE)
    for start_s in (0.5, 2.2, 4.0):
        count, start = round(rng.uniform(0.5, 1.1) * RATE), round(start_s * RATE)
        spectrum = np.fft.rfft(rng.standard_normal(count))
        distance_hz = np.fft.rfftfreq(count, 1 / RATE) - rng.uniform(800, 2000)
        breath = np.fft.irfft(spectrum * np.exp(-((distance_hz / 1500) ** 2)), count)
        sound[start : start + count] = breath * np.sin(np.pi * np.arange(count) / count) ** 1.5
    return sound


def laughter(rng: np.random.Generator) -> NDArray[np.floating]:
    """Two laughs: a handful of short voiced bursts, each lower than the last."""
    sound = np.zeros(6 * RATE)
    for start_s in (0.4, 2.7):
        at_s = start_s
        for burst in range(rng.integers(5, 9)):
            time_s = np.arange(round(0.09 * RATE)) / RATE
            pitch = rng.uniform(180, 350) * (1 - 0.03 * burst)
            voice = 0.3 * rng.standard_normal(len(time_s))
            for overtone in range(1, 15):
                strength = np.exp(-(((pitch * overtone - 900) / 900) ** 2)) / overtone
                voice += strength * np.sin(2 * np.pi * pitch * overtone * time_s)
            start = round(at_s * RATE)
            sound[start : start + len(voice)] += voice * np.sin(np.pi * time_s / 0.09)
            at_s += rng.uniform(0.17, 0.24)
    return sound


def crowd(rng: np.random.Generator, clips: Sequence[Floats], count: int) -> Floats:
    """Six seconds of so many voices, equally loud, each of which says one clip after the other."""
    sound = np.zeros(6 * RATE)
    for _ in range(count):
        said = np.concatenate([_trim(clips[index]) for index in rng.choice(len(clips), 8)])
        sound += np.roll(said / (said.std() + 1e-6), rng.integers(len(said)))[: len(sound)]
    return sound.astype(np.float32)


def _trim(clip: Floats) -> Floats:
    (sounding,) = np.nonzero(np.abs(clip) > 0.01)
    return clip[sounding[0] : sounding[-1]]


def _twice(make: Make) -> Make:
    return lambda rng: np.concatenate([make(rng), make(rng)])


def other_sounds(speech: Sequence[Floats], count: int, seed: int) -> Iterator[tuple[str, Floats]]:
    """Sounds by kind: at several levels, half of them by telephone, on a quiet line."""
    makers: dict[str, Make] = {
        "noise in gusts": _twice(lambda rng: noise(rng, float(rng.integers(3)))),
        "music: chords": _twice(chords),
        "music: on hold": lambda rng: hold_music(10, int(rng.integers(1 << 20))),
        "babble of eight voices": _twice(lambda rng: babble(rng, speech)),
        "babble of twenty voices": lambda rng: crowd(rng, speech, 20),
        "babble of four voices": lambda rng: crowd(rng, speech, 4),
        "beeps and sweeps": _twice(tones),
        "ringing": ringing,
        "DTMF": dialling,
        "hold tones": hold_tones,
        "breaths": breaths,
        "laughter": laughter,
    }
    rng = np.random.default_rng(seed)
    for name, make in makers.items():
        for index in range(count):
            sound = make(rng)
            sound = sound * (rng.uniform(0.1, 0.3) / np.abs(sound).max())
            yield name, _line(sound, rng, telephone=index % 2 == 1, noise_db=-80)


def _line(
    sound: NDArray[np.floating], rng: np.random.Generator, *, telephone: bool, noise_db: float
) -> Floats:
    if telephone:
        sound = soxr.resample(soxr.resample(sound, RATE, RATE // 2), RATE // 2, RATE)
    found: Floats = (sound + 10 ** (noise_db / 20) * rng.standard_normal(len(sound))).astype(
        np.float32
    )
    return found


def ours(sound: Floats) -> Mask:
    """The rules of the service."""
    found = np.zeros(len(sound) // FRAME, bool)
    for turn in find_turns([Waveform(sound)], 6 * RATE)[0]:
        for start, end in turn.parts:
            found[start // FRAME : end // FRAME] = True
    return found


def webrtc(sound: Floats) -> Mask:
    """WebRTC's detector at its strictest."""
    import webrtcvad

    detector = webrtcvad.Vad(3)
    pcm = (np.clip(sound, -1, 1) * 32767).astype("<i2")
    frames = pcm[: len(pcm) // 480 * 480].reshape(-1, 480)
    return _frames([detector.is_speech(one.tobytes(), RATE) for one in frames], 480, sound)


def silero(graph: Path) -> Detector:
    """Silero's detector, 32 ms at a time, at a probability of one half."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options)

    def detect(sound: Floats) -> Mask:
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
        found = []
        for start in range(0, len(sound) - 511, 512):
            samples = np.concatenate([context, sound[None, start : start + 512]], axis=1)
            rate = np.array(RATE, np.int64)
            answer, state = session.run(None, {"input": samples, "state": state, "sr": rate})
            context = samples[:, -64:]
            found.append(bool(answer[0, 0] > 0.5))
        return _frames(found, 512, sound)

    return detect


def _frames(found: list[bool], length: int, sound: Floats) -> Mask:
    """Decisions on parts of so many samples, as decisions on frames."""
    middles = FRAME * np.arange(len(sound) // FRAME) + FRAME // 2
    return np.array(found)[np.minimum(middles // length, len(found) - 1)]


def _sounding(clip: Floats) -> Mask:
    """The frames at most 15 dB below the loud ones."""
    frames = clip[: len(clip) // FRAME * FRAME].reshape(-1, FRAME)
    levels = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
    found: Mask = levels > np.quantile(levels[levels > -60], 0.95) - 15
    return found


def _in_noise(clip: Floats, rng: np.random.Generator, ratio_db: float) -> Floats:
    noise_db = 10 * np.log10(np.square(clip[8_000:-8_000]).mean()) - ratio_db
    return _line(clip, rng, telephone=False, noise_db=noise_db)


def _in_room(clip: Floats, rng: np.random.Generator) -> Floats:
    """Half a second of reverberation, as loud as what arrives directly."""
    echo = rng.standard_normal(RATE // 2) * np.exp(-np.arange(RATE // 2) / (0.07 * RATE))
    echo[0] = np.sqrt(np.square(echo).sum())
    wet = np.fft.irfft(np.fft.rfft(clip, 1 << 18) * np.fft.rfft(echo, 1 << 18))[: len(clip)]
    return _line(0.5 * wet / echo[0], rng, telephone=False, noise_db=-75)


RECORDINGS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "clean": lambda clip, rng: _line(clip, rng, telephone=False, noise_db=-80),
    "by telephone": lambda clip, rng: _line(clip, rng, telephone=True, noise_db=-55),
    "noise 15 dB below": lambda clip, rng: _in_noise(clip, rng, 15),
    "too loud, clipped": lambda clip, rng: _line(
        np.clip(5 * clip, -1, 1), rng, telephone=False, noise_db=-65
    ),
    "in a room": _in_room,
    "offset and hum": lambda clip, rng: _line(
        clip + 0.05 + 0.01 * np.sin(np.arange(len(clip)) * 2 * np.pi * 60 / RATE),
        rng,
        telephone=False,
        noise_db=-75,
    ),
}
"""What happens to speech on its way."""


def _speech(data: Path, count: int) -> list[Floats]:
    chosen = [
        clip
        for clips in clips_by_corpus(data)
        if clips[0].relative_to(data.resolve()).parts[0] in CORPORA
        for clip in clips[:count]
    ]
    found = []
    for clip in chosen:
        samples = decode(clip).waveforms[0].samples
        samples = samples[: len(samples) // 2 * 2]
        found.append(np.pad(0.3 * samples / max(np.abs(samples).max(), 1e-3), 8_000))
    return found


def _row(figures: Iterable[float]) -> str:
    return " | ".join(f"{figure:.3f}" for figure in figures)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--silero", type=Path)
    parser.add_argument("--clips", type=int, default=40, help="of each corpus")
    parser.add_argument("--sounds", type=int, default=16, help="of each kind")
    args = parser.parse_args()
    detectors: dict[str, Detector] = {"this rule": ours}
    if importlib.util.find_spec("webrtcvad"):
        detectors["WebRTC"] = webrtc
    if args.silero:
        detectors["Silero"] = silero(args.silero)
    speech, rng = _speech(args.data, args.clips), np.random.default_rng(0)
    lines = [f"| sound | | {' | '.join(detectors)} |", "| --- | --- |" + " --- |" * len(detectors)]
    for name, make in RECORDINGS.items():
        lost = np.zeros(len(detectors))
        for clip in speech:
            sound, sounding = make(clip, rng), _sounding(clip)
            missed = [np.mean(~detect(sound)[sounding]) for detect in detectors.values()]
            lost += np.array(missed) / len(speech)
        lines.append(f"| speech: {name} | lost | {_row(lost)} |")
    shares: dict[str, list[list[float]]] = {}
    for name, sound in other_sounds(speech, args.sounds, seed=0):
        taken = [float(np.mean(detect(sound))) for detect in detectors.values()]
        shares.setdefault(name, []).append(taken)
    lines += [
        f"| {name} | taken | {_row(np.mean(all_, axis=0))} |" for name, all_ in shares.items()
    ]
    minute = np.concatenate(speech)[: 60 * RATE].astype(np.float32)
    costs = []
    for detect in detectors.values():
        started = time.process_time()
        detect(minute)
        costs.append(1000 * (time.process_time() - started) / 20)
    lines.append(f"| 3 s of speech | ms | {_row(costs)} |")
    facts = provenance(f"python -m benchmarks.detectors {shlex.join(sys.argv[1:])}")
    write("detectors", "\n".join(lines), facts | machine_load())


if __name__ == "__main__":
    main()
