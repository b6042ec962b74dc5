"""Recordings in the containers that PyAV writes, made in memory."""

import base64
import io
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.support.sounds import Samples, speechlike

# speechlike(1.5) in AMR at 4.75 kbit/s: not every build of FFmpeg can write it.
_AMR = base64.b64decode(
    "IyFBTVIKBPObVwHjYLW0Ib8OyARUsrbbwrn27D6dlVQEVJvEPIL+xmnaiHAWBFSyxKyj/4T5KIWsjgRUlL+sopOH"
    "KKix6cAEVJvG2nNKRKWlYBIsBFSUxypTqGXSYenCmATzsse1JT4iaGHVkRQE+CjKMAYRu2VrdNTyBDUYbPFEEzhY"
    "6exuGASUTBv0IDv5VfIDzB4E0pgV8i3ek28AWJHABEs8P/InJKTT7WU5CATP6k/yLdnT59bCVr4ENjE79BcRdYb/"
    "A+bSBM8o7fIr2Laf1BqGcATn7KtC8xC1aev/Wn4Ej7LIrMKiFm554fQgBFSbvqfSt9f1ceX/8gRUsrtacrPGxReO"
    "mZYEVLK1q2J819Dh/ermBFSysZ6iSeaJCJiAoATzsq3aooQXwJtr8JYEVEmpNTJGFrh4aVQEBPhsm/AIE4v7yhEn"
    "sATtKJsxLZcyZqRj3sQE/ur/FBNymf5iClCUBDFnL/AkZale/IzNHAQ2jqSwK1+2Nz5LjjoEZTz/MAdf5M+4Fu1M"
    "BBWYZ8QDsVkDvuB1wgT/PH/yB1GFav5SXUoE80mPAvlDbW5qE/DyBI9zhGW1cc2ufD4D5gTZEXnH77f9a9Pw5eAE"
    "j3N2q9923Izm4dx+BNkReGxvu03Q0hPX7ASPc25+7zzd3CKfCIgE2RFup5/ZLIKvMChMBI5CbqpdoBsNdgBqQASO"
    "QmnwBm5nj+upkowEFiUL8WMoaN/tsh7oBFjq/DALuVb3j918pASUjsP0EzBZ6URr8DYEzxjb8glSgb0tWByGBFgo"
    "F8FDfOkfPZnBgAQ2mLvGBl8lE/5zW44EzzabxBt3dxM0pSzYBFQJI8DOrHk6ciEp9gSOQms5v7e9hF/GgiQE2Qln"
    "K98+/N7+ScbcBI9CaNa/99217wd1jgTZCWquz93sINmjch4Ej3N0r2+RTVwSCEdMBNkRa75/QOzyATx5LASPc3Kp"
    "L3GsMWJJgvoEjidy8wSI6Y/IIANCBKqYHLAZMaRPamybhgRwGLP2J5SFrakJLkIEmDG3ciORucdO4FmWBDYlz3FN"
    "bxP/g2WHXAQzHoDhGhGbnuJ1MMwEFiiPNAS7ud8/9wykBDM8/PEEnqP1utqQ3ARUCZswUkP1555H90gE2cGHzam6"
    "7f1n512kBFSynayi8sdprMWFuATZsp73eeP8pD+zFV4EVLKinnJ1d4MdqoDYBNmypzqiZ6eTjoGb8ARUsqqnsgh3"
    "yykZnEQE80my4jJx90SZ+HWqBNlztlIDiLrZkRi1gASYdRe5AJg5a+mcScYEWDqrMkallfsH6hbyBJYAx/IJDXH/"
    "6iRhjA=="
)
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


def amr(container: str = "amr") -> bytes:
    """One and a half seconds of speech-like sound in AMR, in its own container or in 3GP."""
    if container == "amr":
        return _AMR
    file = io.BytesIO()
    with av.open(io.BytesIO(_AMR)) as source, av.open(file, "w", format=container) as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()


def caf_opus() -> bytes:
    """One and a half seconds of speech-like sound in Opus in a CAF, which FFmpeg does not write."""
    ogg = io.BytesIO(encode_media(rate=48_000, container="ogg", codec="libopus"))
    with av.open(ogg) as source:
        packets = [bytes(packet) for packet in source.demux() if packet.size]
    desc = struct.pack(">d4sIIIII", 48_000, b"opus", 0, 0, 960, 1, 0)
    table = struct.pack(">qqii", len(packets), 960 * len(packets), 0, 0)
    sizes = (len(packet) for packet in packets)
    table += b"".join(
        bytes([0x80 | size >> 7, size & 0x7F] if size > 0x7F else [size]) for size in sizes
    )
    data = bytes(4) + b"".join(packets)
    chunks = ((b"desc", desc), (b"data", data), (b"pakt", table))
    return b"caff\x00\x01\x00\x00" + b"".join(
        name + struct.pack(">q", len(body)) + body for name, body in chunks
    )


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
