"""Plain WAV: read as libsndfile reads it, whole where its header is not, and never for long."""

import io
import struct

import numpy as np
import pytest
import soundfile

from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.wav import WavReader
from nnpm.service.inference.errors import AudioTooShortError, NotAudioError
from tests.support.hostile.spinning import spinning_wav
from tests.support.sounds import Samples, encode, speechlike, with_wav_sizes

WAV = encode(speechlike(), subtype="PCM_16")  # 1.5 s, a header of 44 bytes
SAMPLES = decode(WAV).waveforms[0].samples

PLAIN = [
    (container, subtype, endian)
    for container, subtypes in {
        "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
        "WAVEX": ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW"),
        "RF64": ("PCM_16", "PCM_24", "FLOAT"),
        "W64": ("PCM_16", "PCM_24", "FLOAT", "ALAW"),
    }.items()
    for subtype in subtypes
    for endian in (("LITTLE", "BIG") if container == "WAV" else ("LITTLE",))
]


def written(samples: Samples, container: str, subtype: str, endian: str = "LITTLE") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=container, subtype=subtype, endian=endian)
    return file.getvalue()


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


FMT = WAV[12:36]
DATA = WAV[44:]


@pytest.mark.parametrize(("container", "subtype", "endian"), PLAIN)
@pytest.mark.parametrize("num_channels", [1, 3])
def test_samples_are_those_of_libsndfile(
    container: str, subtype: str, endian: str, num_channels: int
) -> None:
    samples = np.stack([speechlike(1.5, seed=seed) for seed in range(num_channels)], axis=1)
    clip = written(samples, container, subtype, endian)
    reader = WavReader(io.BytesIO(clip))
    expected, rate = soundfile.read(io.BytesIO(clip), dtype="float32", always_2d=True)
    blocks = list(reader.blocks())
    assert all(block.flags.writeable for block in blocks)
    assert np.array_equal(np.concatenate(blocks), expected)
    assert (reader.rate_hz, reader.num_channels, reader.stated_frames) == (
        rate,
        num_channels,
        24_000,
    )
    assert list(reader.warnings(24_000, 0.5)) == []


WHOLE = {
    "as it should be": riff(FMT, chunk(b"data", DATA)),
    "sizes of 0": with_wav_sizes(WAV, 0, 0),
    "sizes of 2^32 - 1": with_wav_sizes(WAV, 0xFFFFFFFF, 0xFFFFFFFF),
    "sizes of sox": with_wav_sizes(WAV, 0x7FFFF024, 0x7FFFF000),
    "sizes of 2^31": with_wav_sizes(WAV, 0x80000024, 0x80000000),
    "only the size of the whole is unfilled": with_wav_sizes(WAV, 0, len(DATA)),
    "only the size of the samples is unfilled": with_wav_sizes(WAV, len(WAV) - 8, 0xFFFFFFFF),
    "a chunk before fmt": riff(chunk(b"JUNK", bytes(28)), FMT, chunk(b"data", DATA)),
    "a chunk before data": riff(FMT, chunk(b"LIST", b"INFO"), chunk(b"data", DATA)),
    "a chunk behind data": riff(FMT, chunk(b"data", DATA), chunk(b"LIST", b"INFOxxxx")),
    "fmt behind data": riff(chunk(b"data", DATA), FMT),
    "an odd chunk with padding": riff(FMT, chunk(b"LIST", b"abc") + b"\0", chunk(b"data", DATA)),
    "an odd chunk without padding": riff(FMT, chunk(b"LIST", b"abc"), chunk(b"data", DATA)),
    "a chunk that lies": riff(
        FMT, chunk(b"LIST", b"INFOxxxx\xf8\xff\xff\xff"), chunk(b"data", DATA)
    ),
    "an ID3 tag behind": WAV + b"TAG" + bytes(125),
    "a long trailer of zeros": WAV + bytes(4000),
    "an empty data chunk first": riff(FMT, chunk(b"data", b""), chunk(b"data", DATA)),
    "a block size of 0": WAV[:32] + bytes(2) + WAV[34:],
    "a byte rate of 0": WAV[:28] + bytes(4) + WAV[32:],
    "RF64 with sizes of 0": b"RF64\xff\xff\xff\xffWAVE"
    + chunk(b"ds64", bytes(28)) + FMT + chunk(b"data", DATA, 0xFFFFFFFF),
    "RF64 with sizes of 2^64 - 1": b"RF64\xff\xff\xff\xffWAVE"
    + chunk(b"ds64", b"\xff" * 28) + FMT + chunk(b"data", DATA, 0xFFFFFFFF),
    "RF64 without ds64": b"RF64\xff\xff\xff\xffWAVE" + FMT + chunk(b"data", DATA, 0xFFFFFFFF),
    "RF64 that ends too soon": b"RF64\xff\xff\xff\xffWAVE"
    + chunk(b"ds64", struct.pack("<QQQI", 0, len(DATA), 0, 0)) + FMT
    + chunk(b"data", DATA, 0xFFFFFFFF) + chunk(b"LIST", b"INFO"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_is_read_whole(name: str) -> None:
    recording = decode(WHOLE[name])
    assert np.array_equal(recording.waveforms[0].samples, SAMPLES)
    assert [w for w in recording.info.warnings if "2 data chunks" not in w] == []


HALF = len(DATA) // 2
ODD = {
    "twice the samples promised": (
        with_wav_sizes(WAV, 2 * len(DATA) + 36, 2 * len(DATA)),
        1.5,
        "The WAV breaks off: its header states 3.00 s, and 1.50 s are there.",
    ),
    "cut in the middle": (
        WAV[: 44 + HALF],
        0.75,
        "The WAV breaks off: its header states 1.50 s, and 0.75 s are there.",
    ),
    "RF64 that breaks off": (
        b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", struct.pack("<QQQI", 0, 96_000, 0, 0))
        + FMT + chunk(b"data", DATA, 0xFFFFFFFF),
        1.5,
        "The RF64 breaks off: its header states 3.00 s, and 1.50 s are there.",
    ),
    "half of the samples promised": (
        with_wav_sizes(WAV, len(WAV) - 8, HALF),
        1.5,
        "The header of the WAV states 0.75 s; 0.75 s more follow and were read.",
    ),
    "two data chunks": (
        riff(FMT, chunk(b"data", DATA[:HALF]), chunk(b"data", DATA[HALF:])),
        1.5,
        "The WAV has 2 data chunks; all of them were read.",
    ),
    "two files": (
        WAV + WAV,
        3.0,
        "The file holds 2 WAV files in a row; all of them were read.",
    ),
    "two files of different rates": (
        WAV + encode(speechlike(), 8_000),
        1.5,
        "The sample format changes within the WAV; what follows the change was not read.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_is_there_is_read_with_a_warning(name: str) -> None:
    clip, duration_s, warning = ODD[name]
    info = decode(clip).info
    assert info.duration_s == pytest.approx(duration_s)
    assert warning in info.warnings


def test_w64_that_breaks_off() -> None:
    clip = encode(speechlike(), container="W64", subtype="PCM_16")
    (warning,) = decode(clip[: -len(DATA) // 2]).info.warnings
    assert warning.startswith("The W64 breaks off: its header states 1.50 s")


@pytest.mark.parametrize("size", [0, 24, (1 << 63) - 1, (1 << 64) - 1])
def test_w64_written_to_a_pipe_is_read_to_its_end(size: int) -> None:
    clip = encode(speechlike(), container="W64", subtype="PCM_16")
    at = clip.index(b"data") + 16
    whole = struct.pack("<Q", size if size > 24 else 0)
    streamed = clip[:16] + whole + clip[24:at] + struct.pack("<Q", size) + clip[at + 8 :]
    info = decode(streamed).info
    assert (info.duration_s, info.warnings) == (1.5, ())


def test_the_last_frame_may_be_incomplete() -> None:
    assert decode(WAV[:-1]).info.duration_s == pytest.approx(1.5, abs=1e-3)


def test_an_empty_wav_is_empty() -> None:
    for clip in (
        riff(FMT, chunk(b"data", b"")),
        riff(FMT, chunk(b"data", b""), chunk(b"LIST", b"INFO")),
    ):
        with pytest.raises(AudioTooShortError, match="a header but no samples"):
            decode(clip)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (riff(chunk(b"data", DATA)), "has no fmt chunk"),
        (riff(FMT), "has no data chunk"),
        (b"RIFF\x00\x00\x00\x00WAVY" + bytes(100), "begins as a WAV does"),
        (WAV[:22] + bytes(2) + WAV[24:], "states 0 channels and 16000 Hz"),
    ],
)
def test_what_is_missing_is_named(clip: bytes, message: str) -> None:
    with pytest.raises(NotAudioError, match=message):
        decode(clip)


def test_plain_samples_in_a_file_that_libsndfile_never_finishes_are_read() -> None:
    """No size in a chunk moves the parser backwards, or twice to one place."""
    assert decode(spinning_wav("PCM_16")).info.duration_s == 0.5
    assert decode(spinning_wav("FLOAT")).info.duration_s == 0.5


def test_24_bits_in_32_are_read() -> None:
    fmt = struct.pack("<HHIIHH", 1, 1, 16_000, 64_000, 4, 24)
    wide = (SAMPLES * 32768).astype("<i4") << 16
    clip = riff(chunk(b"fmt ", fmt), chunk(b"data", wide.tobytes()))
    assert np.array_equal(decode(clip).waveforms[0].samples, SAMPLES)
