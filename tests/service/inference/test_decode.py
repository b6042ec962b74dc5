import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference.audio import sndfile, wav
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import Limits
from nnpm.service.inference.errors import (
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    DamagedAudioError,
    NotAudioError,
)
from tests.support.sounds import (
    encode,
    long_flac,
    speechlike,
    with_flac_length,
    with_wav_sizes,
)

FORMATS = [
    ("WAV", "PCM_U8", 0.02),
    ("WAV", "PCM_16", 1e-4),
    ("WAV", "PCM_24", 1e-6),
    ("WAV", "PCM_32", 1e-6),
    ("WAV", "FLOAT", 1e-6),
    ("WAV", "DOUBLE", 1e-6),
    ("WAV", "ULAW", 0.02),
    ("WAV", "ALAW", 0.02),
    ("FLAC", "PCM_16", 1e-4),
    ("AIFF", "PCM_16", 1e-4),
    ("OGG", "VORBIS", 0.1),
    ("OGG", "OPUS", 0.1),
    ("MP3", "MPEG_LAYER_III", 0.1),
]


def decibel(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20))


@pytest.mark.parametrize(("container", "subtype", "tolerance"), FORMATS)
def test_every_format_gives_the_samples_back(
    container: str, subtype: str, tolerance: float
) -> None:
    samples = speechlike()
    recording = decode(encode(samples, container=container, subtype=subtype))
    (waveform,) = recording.waveforms
    assert waveform.samples.dtype == np.float32
    assert waveform.samples.shape == samples.shape
    assert np.abs(waveform.samples - samples).max() < tolerance
    assert recording.info.format == container
    assert recording.info.duration_s == 1.5
    assert recording.info.warnings == ()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_every_rate_and_channel_count_gives_16_khz(rate: int, num_channels: int) -> None:
    samples = np.stack([speechlike(1, rate)] * num_channels, axis=1)
    recording = decode(encode(samples, rate))
    (waveform,) = recording.waveforms
    assert waveform.samples.shape == (16_000,)
    assert recording.info.sample_rate_hz == rate
    assert recording.info.channels == num_channels
    assert decibel(waveform.samples) == pytest.approx(decibel(samples), abs=0.5)


@pytest.mark.parametrize(("tone_hz", "gain_db"), [(1_000, 0), (6_000, 0), (10_000, -90)])
def test_resampling_is_band_limited(tone_hz: int, gain_db: float) -> None:
    tone = 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(48_000) / 48_000)
    (waveform,) = decode(encode(tone, 48_000, subtype="FLOAT")).waveforms
    measured_db = decibel(waveform.samples[1_000:-1_000]) - decibel(tone)
    assert measured_db < gain_db + 1
    if gain_db == 0:
        assert measured_db == pytest.approx(0, abs=0.05)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, container: str, rate: int) -> None:
    clip = encode(speechlike(3, rate), rate, container=container)
    outputs = []
    for block_samples in (1 << 30, 1 << 14, 1_000):
        monkeypatch.setattr(sndfile, "BLOCK_SAMPLES", block_samples)
        monkeypatch.setattr(wav, "_BLOCK_BYTES", 2 * block_samples)
        outputs.append(decode(clip).waveforms[0].samples)
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


def test_16_khz_is_left_alone() -> None:
    samples = speechlike().astype(np.float32)
    assert np.array_equal(decode(encode(samples, subtype="FLOAT")).waveforms[0].samples, samples)


def test_channels_are_mixed_or_split() -> None:
    left, right = speechlike(seed=1), speechlike(seed=2)
    clip = encode(np.stack([left, right], axis=1), subtype="FLOAT")
    (mixed,) = decode(clip).waveforms
    np.testing.assert_allclose(mixed.samples, (left + right) / 2, atol=1e-6)
    first, second = decode(clip, channels="split").waveforms
    np.testing.assert_allclose(first.samples, left, atol=1e-6)
    np.testing.assert_allclose(second.samples, right, atol=1e-6)


def test_a_path_a_file_and_bytes_are_the_same(tmp_path: Path) -> None:
    clip = encode(speechlike(), container="FLAC")
    path = tmp_path / "clip.flac"
    path.write_bytes(clip)
    with tempfile.SpooledTemporaryFile(max_size=1 << 10) as spooled:
        spooled.write(clip)
        outputs = [decode(source).waveforms[0].samples for source in (clip, path, spooled)]
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


def test_a_missing_file_says_so_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(NotAudioError, match=r"^The file cannot be opened: No such file"):
        decode(tmp_path / "missing.wav")


@pytest.mark.parametrize(
    ("riff", "data"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (36, 0), (0xFFFFFFFF, 0), (0x7FFFFFFF,) * 2],
)
def test_a_wav_written_to_a_pipe_is_read_to_its_end(riff: int, data: int) -> None:
    clip = encode(speechlike(), subtype="PCM_16")
    streamed = decode(with_wav_sizes(clip, riff, data))
    assert np.array_equal(streamed.waveforms[0].samples, decode(clip).waveforms[0].samples)


def test_a_wav_cut_short_is_shorter() -> None:
    clip = encode(speechlike(), subtype="PCM_16")
    assert decode(clip[: len(clip) // 2]).info.duration_s == pytest.approx(0.75, abs=0.01)


def test_an_mp3_cut_short_warns() -> None:
    clip = encode(speechlike(4), container="MP3")
    info = decode(clip[: len(clip) // 2]).info
    assert 1 < info.duration_s < 3
    assert "states 4.00 s" in info.warnings[0]


def test_clipping_is_counted_before_resampling() -> None:
    samples = speechlike(rate=48_000)
    samples[:7_200] = np.where(np.arange(7_200) % 2, 1.0, -1.0)  # above 8 kHz: gone afterwards
    info = decode(encode(samples, 48_000)).info
    assert info.clipped_ratio == pytest.approx(0.1, abs=0.001)
    assert info.warnings == ()


def test_floats_beyond_full_scale_are_clipped_with_a_warning() -> None:
    recording = decode(encode(20 * speechlike(), subtype="FLOAT"))
    assert np.abs(recording.waveforms[0].samples).max() == 1.0
    assert "were clipped to 1" in recording.info.warnings[0]


def test_resampling_does_not_overshoot() -> None:
    square = np.sign(np.sin(np.arange(48_000) / 40))
    assert np.abs(decode(encode(square, 48_000)).waveforms[0].samples).max() <= 1.0


def random_bytes(size: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()


NOT_AUDIO = {
    "text": b"hello, this is no audio\n" * 100,
    "zeros": bytes(10_000),
    "random": random_bytes(100_000),
    "a format that we do not read": encode(speechlike(), container="VOC"),
    "png": b"\x89PNG\r\n\x1a\n" + random_bytes(5_000),
    "pdf": b"%PDF-1.7\n" + random_bytes(5_000),
    "zip": b"PK\x03\x04" + random_bytes(5_000),
    "riff": b"RIFF",
    "riff wave": b"RIFF\xff\xff\xff\xffWAVE",
    "ogg page": b"OggS" + bytes(100),
    "flac magic": b"fLaC" + bytes(100),
    "mp3 sync": b"\xff\xfb" * 1_000,
    "id3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(100),
    "no channels": encode(speechlike())[:22] + bytes(2) + encode(speechlike())[24:],
    "no rate": encode(speechlike())[:24] + bytes(4) + encode(speechlike())[28:],
    "1 Hz": encode(speechlike(), 1),
    "10 MHz": encode(speechlike(), 10_000_000),
    "64 channels": encode(speechlike(1.0).reshape(-1, 64)),
}


@pytest.mark.parametrize("name", NOT_AUDIO)
def test_what_is_not_audio_is_refused_without_leaks(name: str) -> None:
    with pytest.raises(NotAudioError) as caught:
        decode(NOT_AUDIO[name])
    assert "object at" not in str(caught.value)
    assert "sndfile" not in str(caught.value).lower()


def test_refusals_name_the_number_seen_and_wanted() -> None:
    with pytest.raises(NotAudioError, match=r"64 channels; at most 8"):
        decode(NOT_AUDIO["64 channels"])
    with pytest.raises(NotAudioError, match=r"1 Hz; it must be between 2000 and 384000 Hz"):
        decode(NOT_AUDIO["1 Hz"])
    with pytest.raises(AudioTooShortError, match=r"0.05 s of audio; at least 0.1 s"):
        decode(encode(speechlike(0.05)))


@pytest.mark.parametrize(
    "clip",
    [b"", encode(np.zeros(0)), encode(np.zeros(1)), encode(np.zeros(1_599))],
    ids=["no bytes", "no frames", "one sample", "just under 0.1 s"],
)
def test_too_short(clip: bytes) -> None:
    with pytest.raises(AudioTooShortError):
        decode(clip)


def test_a_tenth_of_a_second_is_enough() -> None:
    assert decode(encode(np.zeros(1_600))).info.duration_s == 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_damage(bad: float) -> None:
    samples = speechlike()
    samples[8_000] = bad
    with pytest.raises(DamagedAudioError, match=r"sample at 0\.500 s"):
        decode(encode(samples, subtype="FLOAT"))


def test_a_flac_cut_short_is_damage() -> None:
    clip = encode(speechlike(8), container="FLAC")
    with pytest.raises(DamagedAudioError, match=r"after about \d\.\d s of the 8\.0 s"):
        decode(clip[: len(clip) // 2])


def test_a_flac_that_promises_more_than_it_holds_is_damage() -> None:
    clip = with_flac_length(encode(speechlike(2), container="FLAC"), 16_000 * 60)
    with pytest.raises(DamagedAudioError, match=r"2\.0 s of the 60\.0 s"):
        decode(clip)


def test_the_header_is_believed_when_it_says_too_long() -> None:
    with pytest.raises(AudioTooLongError, match=r"36000\.0 s .* at most 7200 s"):
        decode(with_flac_length(long_flac(60), 16_000 * 36_000))


def test_a_header_of_unknown_length_is_counted_while_decoding() -> None:
    limits = Limits(max_duration_s=30)
    with pytest.raises(AudioTooLongError, match="at most 30 s"):
        decode(with_flac_length(long_flac(600), 0), limits=limits)
    assert decode(with_flac_length(long_flac(60), 0)).info.duration_s == 60


def test_split_channels_count_each() -> None:
    clip = encode(np.zeros((16_000 * 4, 2)))
    limits = Limits(max_duration_s=6)
    assert len(decode(clip, limits=limits).waveforms) == 1
    with pytest.raises(
        AudioTooLongError,
        match=r"4\.0 s or more .* in each of 2 channels, 8\.0 s together; with split channels at "
        r"most 6 s together .* parts of 3 s",
    ):
        decode(clip, channels="split", limits=limits)


def test_every_cut_and_every_flipped_byte_is_handled() -> None:
    rng = np.random.default_rng(0)
    for container in ("WAV", "FLAC", "OGG", "MP3", "AIFF"):
        clip = bytearray(encode(speechlike(0.5), container=container))
        for _ in range(40):
            hostile = bytearray(clip[: rng.integers(1, len(clip) + 1)])
            for position in rng.integers(0, min(200, len(hostile)), 4):
                hostile[position] = rng.integers(256)
            with contextlib.suppress(AudioError):
                decode(io.BytesIO(hostile), limits=Limits(max_duration_s=60))


def test_opposite_phase_does_not_cancel_speech() -> None:
    left = speechlike()
    for samples, loudest in (
        ([left, -left], 1),
        ([-left, 0.9 * left], 1),
        ([0.7 * left, -left], 2),
        ([0 * left, left, -left], 2),
    ):
        recording = decode(encode(np.stack(samples, axis=1), subtype="FLOAT"))
        np.testing.assert_array_equal(
            recording.waveforms[0].samples, samples[loudest - 1].astype(np.float32)
        )
        (warning,) = recording.info.warnings
        assert f"channel {loudest}, the loudest, was scored" in warning


def test_channels_that_only_differ_are_mixed() -> None:
    rng = np.random.default_rng(0)
    speech = speechlike()
    noise = [0.1 * rng.standard_normal(len(speech)) for _ in range(8)]
    for samples in (
        [speech, 0 * speech],
        [speech, -0.5 * speech],
        noise[:2],
        noise,
        [0 * speech] * 2,
    ):
        clip = encode(np.stack(samples, axis=1), subtype="FLOAT")
        recording = decode(clip)
        assert recording.info.warnings == ()
        mean = np.mean(np.stack(samples, axis=1).astype(np.float32), axis=1)
        np.testing.assert_allclose(recording.waveforms[0].samples, mean, atol=1e-6)
    assert decode(encode(np.stack([speech, -speech], axis=1)), channels="split").info.warnings == ()
