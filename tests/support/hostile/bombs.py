"""Small files that expand to much, or that two readers understand differently."""

import io
import struct
import zipfile
from collections.abc import Callable
from functools import cache

import numpy as np

from tests.support.hostile.ogg import opus_silence
from tests.support.hostile.seeds import id3, seeds, silence
from tests.support.sounds import encode, long_flac, speechlike, with_flac_length, with_wav_sizes

HOUR_S = 3600


def bombs() -> dict[str, Callable[[], bytes]]:
    """Makers of hostile files, by name."""
    return {
        "ten hours of FLAC": _flac_silence,
        "ten hours of FLAC that hide": lambda: with_flac_length(_flac_silence(), 0),
        "ten hours of FLAC that lie": lambda: with_flac_length(_flac_silence(), 2_000),
        "ten hours of Opus": lambda: opus_silence(10 * HOUR_S),
        "ten hours of Opus that lie": lambda: opus_silence(10 * HOUR_S, last_granule=48_000),
        "ten hours of Opus that hide": lambda: opus_silence(10 * HOUR_S, last_granule=-1),
        "Opus of 2^63": lambda: opus_silence(1, last_granule=(1 << 63) - 1),
        "ten hours of MP3": _mp3_silence,
        "384 kHz in 8 channels": lambda: silence("FLAC", "PCM_16", 8, 384_000, 8),
        "a million empty FLAC blocks": lambda: _flac_blocks(b"\x01\x00\x00\x00" * 1_000_000),
        "tags of 200 MB, claimed": lambda: id3(b"", claimed_bytes=200_000_000) + _mp3(),
        "tags of 256 MB, claimed": lambda: id3(b"", claimed_bytes=(1 << 28) - 1) + _mp3(),
        "a tag of 30 MB": lambda: id3(_text(b"x" * 30_000_000)) + _mp3(),
        "a tag of a million texts": lambda: id3(_text(b"x") * 1_000_000) + _mp3(),
        "a tag in the middle": lambda: _frames() + id3(_text(b"x" * 30_000_000)) + _frames(),
        "100 MB of tag in the middle": lambda: (
            _frames() + id3(_text(b"x" * 100_000_000)) + _frames()
        ),
        "100,000 tags in the middle": lambda: _frames() + id3(b"") * 100_000 + _frames(),
        "zeros in the middle": lambda: _frames() + bytes(30_000_000) + _frames(),
        "frames and junk in turn": lambda: (_frames() + b"\xff\xf3" * 400) * 500,
        "sync without end": lambda: b"\xff\xfb\x90\x64" * 5_000_000,
        "Ogg marks alone": lambda: b"OggS" * 5_000_000,
        "Ogg before junk": lambda: seeds()["OGG VORBIS"] + bytes(30_000_000),
        "2000 streams in a row": lambda: seeds()["OGG OPUS"] * 2_000,
        "65535 channels": lambda: _wav_with(22, "<H", 65_535),
        "a rate of 2^32": lambda: _wav_with(24, "<I", 0xFFFFFFFF),
        "a rate of 0": lambda: _wav_with(24, "<I", 0),
        "a frame of 0 bytes": lambda: _wav_with(32, "<H", 0),
        "sizes of 2^32": lambda: with_wav_sizes(_wav(), 0xFFFFFFF0, 0xFFFFFFF0),
        "NaN": lambda: _floats(np.nan),
        "infinity": lambda: _floats(np.inf),
        "the largest float": lambda: _floats(np.finfo(np.float32).max),
        "denormals": lambda: _floats(1e-45),
        "doubles that are no floats": lambda: encode(np.full(8000, 1e300), subtype="DOUBLE"),
        "nothing": lambda: b"",
        "WAV and zip": lambda: _wav() + _zip(b"x" * 1_000_000),
        "zip and WAV": lambda: _zip(b"x") + _wav(),
        "a zip bomb": lambda: _zip(bytes(50_000_000)),
        "a zip bomb that says RIFF": lambda: b"RIFF" + _zip(bytes(50_000_000)),
        "PDF and MP3": lambda: b"%PDF-1.7\n" + _mp3(),
        "HTML in a WAV": lambda: _wav()[:44] + b"<script>alert(1)</script>" * 1_000,
        "WAV in a FLAC": lambda: seeds()["FLAC PCM_16"][:42] + _wav(),
        "MP3 behind a WAV header": lambda: _wav()[:44] + _mp3() * 5,
        "ELF": lambda: b"\x7fELF" + bytes(5_000),
        "an executable that says RIFF": lambda: b"RIFF\x7fELF" + bytes(5_000),
    }


def _wav() -> bytes:
    return seeds()["WAV PCM_16"]


def _mp3() -> bytes:
    return seeds()["MP3 MPEG_LAYER_III"]


def _frames() -> bytes:
    """An MP3 without the frame that tells its length."""
    return _mp3()[_mp3().index(_mp3()[:2], 2) :]


def _text(text: bytes) -> bytes:
    size = len(text) + 1
    digits = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"TIT2" + digits + b"\x00\x00\x03" + text


@cache
def _flac_silence() -> bytes:
    return long_flac(10 * HOUR_S, rate=2_000)


def _mp3_silence() -> bytes:
    """One frame of MPEG-2 layer III at 8 kbit/s and 16 kHz that holds nothing, for ten hours."""
    frame = bytes([0xFF, 0xF3, 0x18, 0xC4]) + bytes(32)
    return frame * round(10 * HOUR_S * 16_000 / 576)


def _flac_blocks(blocks: bytes) -> bytes:
    clip = seeds()["FLAC PCM_16"]
    return clip[:42] + blocks + clip[42:]


def _wav_with(offset: int, kind: str, value: int) -> bytes:
    coded = struct.pack(kind, value)
    return _wav()[:offset] + coded + _wav()[offset + len(coded) :]


def _floats(value: float) -> bytes:
    samples = speechlike(0.5).astype(np.float32)
    samples[100:4000] = value
    return encode(samples, subtype="FLOAT")


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.wav", data)
    return file.getvalue()
