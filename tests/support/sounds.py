"""Sounds made by code, and files made of them in memory."""

import io
import struct

import numpy as np
import numpy.typing as npt
import soundfile

Samples = npt.NDArray[np.floating]


def speechlike(
    duration_s: float = 1.5, rate: int = 16_000, seed: int = 0, pitch_hz: float = 120.0
) -> Samples:
    """A buzz through moving resonances, in syllables: modulated as speech is."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * rate)) / rate
    pitch = pitch_hz + 30 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20) if k * 160 < rate / 2)
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t), 0, None) ** 2
    return 0.2 * buzz * syllables + 1e-4 * rng.standard_normal(len(t))


def encode(
    samples: Samples, rate: int = 16_000, *, container: str = "WAV", subtype: str | None = None
) -> bytes:
    """Encode samples of shape (frames,) or (frames, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def long_flac(duration_s: int, rate: int = 16_000) -> bytes:
    """Digital silence as FLAC: some 50 bytes a second."""
    file = io.BytesIO()
    minute = np.zeros(60 * rate, np.int16)
    with soundfile.SoundFile(file, "w", rate, 1, format="FLAC") as stream:
        for _ in range(duration_s // 60):
            stream.write(minute)
    return file.getvalue()


def with_flac_length(flac: bytes, num_frames: int) -> bytes:
    """Let the header of a FLAC promise another length; 0 means that it is not known."""
    (packed,) = struct.unpack(">Q", flac[18:26])
    packed = packed & ~((1 << 36) - 1) | num_frames
    return flac[:18] + struct.pack(">Q", packed) + flac[26:]


def with_wav_sizes(wav: bytes, riff: int, data: int) -> bytes:
    """Put other sizes into the header of a plain 44-byte-header WAV."""
    assert wav[36:40] == b"data"
    return wav[:4] + struct.pack("<I", riff) + wav[8:40] + struct.pack("<I", data) + wav[44:]
