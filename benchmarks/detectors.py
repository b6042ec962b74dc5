"""What share of speech and of other sounds several speech detectors take for speech.

    python -m benchmarks.detectors --data CORPORA [--silero silero_vad_16k_op15.onnx]

Speech are clips of the source corpora and of Hindi with silence around them, clean and by telephone
with noise. The other sounds are made by code. WebRTC's detector takes part if the package
``webrtcvad-wheels`` is installed, Silero's if its graph is given.
"""

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray

from benchmarks.corpora import clips_by_corpus
from benchmarks.make_call import hold_music
from benchmarks.provenance import provenance, write
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ as RATE
from nnpm.service.inference.audio.waveform import Waveform
from nnpm.service.inference.turns import find_turns
from nnpm.training.data.non_speech import babble, chords, noise, tones

Floats = NDArray[np.float32]
Detector = Callable[[Floats], float]
Make = Callable[[np.random.Generator], NDArray[np.floating]]

CORPORA = ("banglaser", "crema", "hindi", "nemo", "ravdess")


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


def _twice(make: Make) -> Make:
    return lambda rng: np.concatenate([make(rng), make(rng)])


def other_sounds(speech: Sequence[Floats], count: int, seed: int) -> Iterator[tuple[str, Floats]]:
    """Sounds by kind: at several levels, half of them by telephone, on a quiet line."""
    makers: dict[str, Make] = {
        "noise in gusts": _twice(lambda rng: noise(rng, float(rng.integers(3)))),
        "music: chords": _twice(chords),
        "music: on hold": lambda rng: hold_music(10, int(rng.integers(1 << 20))),
        "babble of eight voices": _twice(lambda rng: babble(rng, speech)),
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


def ours(sound: Floats) -> float:
    """The rule of the service."""
    (turns,) = find_turns([Waveform(sound)], 6 * RATE)
    return sum(turn.num_samples for turn in turns) / len(sound)


def webrtc(sound: Floats) -> float:
    """WebRTC's detector at its strictest."""
    import webrtcvad

    detector = webrtcvad.Vad(3)
    pcm = (np.clip(sound, -1, 1) * 32767).astype("<i2")
    frames = pcm[: len(pcm) // 480 * 480].reshape(-1, 480)
    return float(np.mean([detector.is_speech(one.tobytes(), RATE) for one in frames]))


def silero(graph: Path) -> Detector:
    """Silero's detector, 32 ms at a time, at a probability of one half."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options)

    def detect(sound: Floats) -> float:
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
        found = []
        for start in range(0, len(sound) - 511, 512):
            samples = np.concatenate([context, sound[None, start : start + 512]], axis=1)
            rate = np.array(RATE, np.int64)
            answer, state = session.run(None, {"input": samples, "state": state, "sr": rate})
            context = samples[:, -64:]
            found.append(answer[0, 0] > 0.5)
        return float(np.mean(found))

    return detect


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
    by_kind: dict[str, list[Floats]] = {
        "speech": [_line(one, rng, telephone=False, noise_db=-80) for one in speech],
        "speech by telephone": [_line(one, rng, telephone=True, noise_db=-55) for one in speech],
    }
    for name, sound in other_sounds(speech, args.sounds, seed=0):
        by_kind.setdefault(name, []).append(sound)
    lines = [f"| sound | {' | '.join(detectors)} |", "| --- |" + " --- |" * len(detectors)]
    for name, sounds in by_kind.items():
        shares = [float(np.mean([detect(one) for one in sounds])) for detect in detectors.values()]
        lines.append(f"| {name} | {' | '.join(f'{share:.3f}' for share in shares)} |")
    minute = np.concatenate(speech)[: 60 * RATE].astype(np.float32)
    costs = []
    for detect in detectors.values():
        started = time.process_time()
        detect(minute)
        costs.append(f"{1000 * (time.process_time() - started) / 20:.2f}")
    lines.append(f"| ms for 3 s | {' | '.join(costs)} |")
    write("detectors", "\n".join(lines), provenance(f"detectors {shlex.join(sys.argv[1:])}"))


if __name__ == "__main__":
    main()
