"""Recordings in the containers that PyAV writes, made in memory."""

import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.service.sounds import Samples, speechlike

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def encode_media(
    samples: Samples | None = None,
    rate: int = 16_000,
    *,
    container: str = "mp4",
    codec: str | None = "aac",
    video: bool = False,
    bit_rate: int | None = None,
    **options: str,
) -> bytes:
    """Encode samples of shape (frames,) or (frames, channels); ``options`` are the muxer's.

    Args:
        samples: speech-like sound by default.
        rate: in Hz.
        container: as FFmpeg names it.
        codec: of the audio; None leaves the audio out.
        video: add a second of moving grey, before the audio.
        bit_rate: of the audio, in bits a second.
    """
    with tempfile.TemporaryDirectory() as folder:  # some muxers read again what they wrote
        path = Path(folder) / "file"
        with av.open(str(path), "w", format=container, options=options) as file:
            picture = file.add_stream("mpeg4", rate=10) if video else None
            sound = None
            if codec is not None:
                samples = speechlike(rate=rate) if samples is None else samples
                samples = samples.reshape(len(samples), -1)
                sound = file.add_stream(codec, rate=rate, layout=_LAYOUTS[samples.shape[1]])
                if bit_rate:
                    sound.bit_rate = bit_rate
            if picture is not None:
                _film(file, picture)
            if sound is not None:
                _speak(file, sound, samples, rate)
        return path.read_bytes()


def _film(file, stream) -> None:
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(10):
        grey = np.full((48, 64, 3), 20 * number, np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def _speak(file, stream, samples: Samples, rate: int) -> None:
    layout = _LAYOUTS[samples.shape[1]]
    packed = np.ascontiguousarray(samples, np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    context = stream.codec_context
    to_codec = av.AudioResampler(context.format, layout, rate, context.frame_size or 1_024)
    for part in [*to_codec.resample(frame), *to_codec.resample(None)]:
        file.mux(stream.encode(part))
    file.mux(stream.encode(None))


def boxes(data: bytes, path: tuple[bytes, ...]) -> tuple[int, int]:
    """Where the contents of a box of an MP4 start and end, as ``(b"moov", b"trak", ...)`` leads."""
    start, end = 0, len(data)
    for wanted in path:
        position = start
        while True:
            assert position < end, wanted
            size, name = struct.unpack(">I4s", data[position : position + 8])
            if name == wanted:
                break
            position += size
        start, end = position + 8, position + size
    return start, end


def with_field(data: bytes, path: tuple[bytes, ...], offset: int, value: int) -> bytes:
    """Replace 32 bits at an offset in the contents of a box."""
    start, _ = boxes(data, path)
    at = start + offset
    return data[:at] + struct.pack(">I", value) + data[at + 4 :]
