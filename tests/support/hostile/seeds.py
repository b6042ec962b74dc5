"""Short clips, one of each format that is read: hostile files are made from them."""

import io
from functools import cache
from importlib.util import find_spec

import numpy as np
import soundfile

from tests.support.sounds import encode, speechlike

_SOUNDFILE = (
    ("WAV", "PCM_16", 1),
    ("WAV", "FLOAT", 2),
    ("WAV", "IMA_ADPCM", 1),
    ("WAV", "MS_ADPCM", 1),
    ("WAV", "GSM610", 1),
    ("WAVEX", "PCM_24", 2),
    ("RF64", "PCM_16", 1),
    ("W64", "PCM_16", 1),
    ("AIFF", "PCM_16", 2),
    ("AU", "ULAW", 1),
    ("CAF", "PCM_16", 1),
    ("CAF", "ALAC_16", 1),
    ("FLAC", "PCM_16", 2),
    ("OGG", "VORBIS", 2),
    ("OGG", "OPUS", 1),
    ("MP3", "MPEG_LAYER_III", 1),
)

# container, codec and rate for PyAV, where that extra is installed
_MEDIA = (
    ("mp4", "aac", 44_100),
    ("webm", "libopus", 48_000),
    ("matroska", "aac", 44_100),
    ("adts", "aac", 44_100),
    ("asf", "wmav2", 44_100),
)


@cache
def seeds() -> dict[str, bytes]:
    """A third of a second of speechlike sound in each format, by name."""
    made = {}
    for container, subtype, num_channels in _SOUNDFILE:
        samples = np.stack([speechlike(0.35)] * num_channels, axis=1)
        made[f"{container} {subtype}"] = encode(samples, container=container, subtype=subtype)
    made["MP3 tagged"] = id3(b"TIT2\0\0\0\x04\0\0\x03abc") + made["MP3 MPEG_LAYER_III"]
    if find_spec("av") is not None:
        for container, codec, rate in _MEDIA:
            made[f"{container} {codec}"] = _media(container, codec, rate)
    return made


def _media(container: str, codec: str, rate: int) -> bytes:
    import av

    file = io.BytesIO()
    samples = (speechlike(0.35, rate)[None] * 32767).astype(np.int16)
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    return file.getvalue()


def id3(frames: bytes, *, claimed_bytes: int | None = None) -> bytes:
    """An ID3v2.4 tag of these frames; its header may claim another size."""
    size = len(frames) if claimed_bytes is None else claimed_bytes
    digits = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + digits + frames


def silence(container: str, subtype: str, duration_s: int, rate: int, num_channels: int) -> bytes:
    """Digital silence, written in pieces."""
    file = io.BytesIO()
    second = np.zeros((rate, num_channels), np.int16)
    with soundfile.SoundFile(file, "w", rate, num_channels, subtype, format=container) as out:
        for _ in range(duration_s):
            out.write(second)
    return file.getvalue()
