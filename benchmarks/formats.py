"""The same recordings in many formats: how far do the answers differ?

    python -m benchmarks.formats --data DIR [--clips 100] [--bundle models/default/2]

DIR holds corpora with a metadata.csv each; clips are taken from all of them in turn, and compared
with their own 16-bit WAV at 16 kHz. Needs the extra ``media``. Writes
benchmarks/results/formats.md.
"""

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.corpora import clips_in_turn
from benchmarks.provenance import provenance, write
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.answer import Answer
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import SAMPLE_RATE_HZ
from nnpm.service.inference.recognizer import Recognizer

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """One way to store a clip.

    Attributes:
        name: in the table.
        encode: samples at ``rate_hz`` to a file.
        rate_hz: that the clip is resampled to before.
    """

    name: str
    encode: Callable[[Floats, int], bytes]
    rate_hz: int = SAMPLE_RATE_HZ


def sound_file(
    container: str, subtype: str | None = None, compression: float | None = None
) -> Callable[[Floats, int], bytes]:
    """Encode with libsndfile."""

    def encode(samples: Floats, rate_hz: int) -> bytes:
        file = io.BytesIO()
        soundfile.write(
            file, samples, rate_hz, subtype, format=container, compression_level=compression
        )
        return file.getvalue()

    return encode


def media(container: str, codec: str, bit_rate: int) -> Callable[[Floats, int], bytes]:
    """Encode with FFmpeg."""

    def encode(samples: Floats, rate_hz: int) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=container) as output:
            stream = output.add_stream(codec, rate=rate_hz, layout="mono")
            stream.bit_rate = bit_rate
            frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = rate_hz, 0
            context = stream.codec_context
            fit = av.AudioResampler(context.format, "mono", rate_hz, context.frame_size or 1_024)
            for part in [*fit.resample(frame), *fit.resample(None)]:
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
        return file.getvalue()

    return encode


FORMATS = (
    Format("FLAC, 16 bit", sound_file("FLAC", "PCM_16")),
    Format("WAV, 44.1 kHz", sound_file("WAV", "PCM_16"), 44_100),
    Format("Ogg Opus, libsndfile's default", sound_file("OGG", "OPUS")),
    Format("Ogg Vorbis, libsndfile's default", sound_file("OGG", "VORBIS")),
    Format("MP3, libsndfile's default", sound_file("MP3")),
    Format("MP3, 44.1 kHz, libsndfile's default", sound_file("MP3"), 44_100),
    Format("M4A (AAC), 64 kbit/s", media("ipod", "aac", 64_000)),
    Format("M4A (AAC), 44.1 kHz, 128 kbit/s", media("ipod", "aac", 128_000), 44_100),
    Format("WebM (Opus), 32 kbit/s", media("webm", "libopus", 32_000)),
    Format("WMA, 44.1 kHz, 64 kbit/s", media("asf", "wmav2", 64_000), 44_100),
    Format("telephone: WAV, 8 kHz, A-law", sound_file("WAV", "ALAW"), 8_000),
    Format("telephone: AMR, 12.2 kbit/s", media("amr", "libopencore_amrnb", 12_200), 8_000),
)
if "libopencore_amrnb" not in av.codecs_available:  # not every build of FFmpeg can write it
    FORMATS = FORMATS[:-1]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--bundle", type=Path, default=Path("models/default/2"))
    options = parser.parse_args()
    recognizer = Recognizer(bundles.load(options.bundle))
    reference: list[Answer] = []
    others: dict[str, list[Answer]] = {one.name: [] for one in FORMATS}
    num_bytes: dict[str, int] = dict.fromkeys(others, 0)
    seconds = 0.0
    for path in clips_in_turn(options.data)[: options.clips]:
        wav = sound_file("WAV", "PCM_16")(decode(path).waveforms[0].samples, SAMPLE_RATE_HZ)
        recording = decode(wav)
        samples = recording.waveforms[0].samples
        seconds += recording.info.duration_s
        reference.append(recognizer.answer(recording))
        for one in FORMATS:
            resampled = soxr.resample(samples, SAMPLE_RATE_HZ, one.rate_hz)
            data = one.encode(np.clip(resampled, -1, 1), one.rate_hz)
            num_bytes[one.name] += len(data)
            others[one.name].append(recognizer.answer(decode(data)))
    rows = []
    for name, answers in others.items():
        kbit_s = 8e-3 * num_bytes[name] / seconds
        rows.append(f"| {name} | {kbit_s:.0f} | {' | '.join(_compare(reference, answers))} |")
    head = [
        "| compared with WAV, 16 bit, 16 kHz | kbit/s | same emotion on top | same answer "
        "| difference of a score: mean | largest of a clip: mean | of 95 % of clips | of all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    facts = provenance(f"benchmarks/formats.py --clips {options.clips}")
    facts["answer"] = "the emotion, or that it abstains"
    write("formats", "\n".join(head + rows), facts)


def _compare(reference: list[Answer], answers: list[Answer]) -> list[str]:
    pairs = list(zip(reference, answers, strict=True))
    differences = np.abs([_scores(one) - _scores(other) for one, other in pairs])
    largest = differences.max(axis=1)
    same_top = [_scores(one).argmax() == _scores(other).argmax() for one, other in pairs]
    same = [one.emotion == other.emotion for one, other in pairs]
    figures = differences.mean(), largest.mean(), np.percentile(largest, 95), largest.max()
    return [f"{np.mean(same_top):.2f}", f"{np.mean(same):.2f}", *(f"{one:.3f}" for one in figures)]


def _scores(answer: Answer) -> NDArray[np.float64]:
    return np.array(list(answer.scores.values()))


if __name__ == "__main__":
    main()
