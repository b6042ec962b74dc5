import contextlib
import io
import resource
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from nnpm.service.inference.audio import ffmpeg
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import Limits
from nnpm.service.inference.errors import (
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    DamagedAudioError,
    NotAudioError,
)
from tests.support.media import amr, boxes, caf_opus, encode_media, with_field
from tests.support.sounds import encode, speechlike

SAMPLE_TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
SIZES = (*SAMPLE_TABLE, b"stsz")
FASTSTART = {"movflags": "+faststart"}
FRAGMENTED = {"movflags": "+frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}

# container, codec, rate, name
FORMATS = [
    ("ipod", "aac", 16_000, "MP4"),
    ("mp4", "aac", 44_100, "MP4"),
    ("mov", "aac", 48_000, "MP4"),
    ("ipod", "alac", 16_000, "MP4"),
    ("mov", "pcm_s16le", 16_000, "MP4"),
    ("mov", "pcm_s24le", 16_000, "MP4"),
    ("mov", "pcm_f32le", 16_000, "MP4"),
    ("mov", "pcm_u8", 16_000, "MP4"),
    ("webm", "libopus", 48_000, "WEBM"),
    ("matroska", "flac", 16_000, "MATROSKA"),
    ("asf", "wmav2", 44_100, "ASF"),
    ("adts", "aac", 16_000, "AAC"),
    ("avi", "mp3", 44_100, "AVI"),
    ("mpegts", "aac", 16_000, "MPEG-TS"),
    ("mpeg", "mp2", 44_100, "MPEG-PS"),
    ("flv", "aac", 44_100, "FLV"),
]


def likeness(samples: np.ndarray, original: np.ndarray) -> float:
    """Correlation at the best shift of up to 0.2 s: codecs put silence before the first sample."""
    size = 1 << 17
    spectra = np.fft.rfft(samples, size), np.fft.rfft(original, size)
    lags = np.fft.irfft(spectra[0] * np.conj(spectra[1]), size)
    near = np.concatenate([lags[:3_200], lags[-3_200:]])
    return float(near.max() / np.sqrt((samples**2).sum() * (original**2).sum()))


def envelope(samples: np.ndarray) -> np.ndarray:
    smooth = np.convolve(np.abs(samples), np.ones(800) / 800, "same")
    return smooth - smooth.mean()


@pytest.mark.parametrize(("container", "codec", "rate", "name"), FORMATS)
def test_every_container_gives_the_sound_back(
    container: str, codec: str, rate: int, name: str
) -> None:
    bit_rate = 128_000 if codec == "wmav2" else None
    clip = encode_media(
        speechlike(3, rate), rate, container=container, codec=codec, bit_rate=bit_rate
    )
    recording = decode(clip)
    assert recording.info.format == name
    assert recording.info.sample_rate_hz == rate
    assert recording.info.channels == 1
    assert recording.info.duration_s == pytest.approx(3, abs=0.15)
    assert recording.info.warnings == ()
    (decoded,) = recording.waveforms
    assert decoded.samples.dtype == np.float32
    assert np.abs(decoded.samples).max() <= 1
    original = speechlike(3)
    assert likeness(decoded.samples, original) > 0.97
    assert likeness(envelope(decoded.samples), envelope(original)) > 0.97


# container and codec of what libsndfile does not read of the formats that it reads otherwise
OTHER_CODECS = [
    ("wav", "g722", 16_000),
    ("wav", "adpcm_yamaha", 16_000),
    ("wav", "ac3", 44_100),
    ("wav", "mp2", 44_100),
    ("wav", "wmav2", 44_100),
    ("caf", "ac3", 44_100),
    ("ogg", "flac", 16_000),
]


@pytest.mark.parametrize(("container", "codec", "rate"), OTHER_CODECS)
def test_what_one_reader_lacks_the_other_reads(container: str, codec: str, rate: int) -> None:
    bit_rate = 128_000 if codec in ("wmav2", "ac3", "mp2") else None
    clip = encode_media(
        speechlike(3, rate), rate, container=container, codec=codec, bit_rate=bit_rate
    )
    recording = decode(clip)
    assert recording.info.format.lower() == container
    assert recording.info.duration_s == pytest.approx(3, abs=0.15)
    assert likeness(envelope(recording.waveforms[0].samples), envelope(speechlike(3))) > 0.95


def test_opus_in_caf_is_read() -> None:
    recording = decode(caf_opus())
    assert recording.info.format == "CAF"
    assert recording.info.duration_s == pytest.approx(1.5, abs=0.05)
    assert likeness(envelope(recording.waveforms[0].samples), envelope(speechlike(1.5))) > 0.95


@pytest.mark.usefixtures("_no_extra", "in_process")
@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [("wav", "g722", "WAV with codec 0x028f"), ("caf", "opus", "CAF with codec opus")],
)
def test_without_the_extra_the_codec_is_named(container: str, codec: str, name: str) -> None:
    clip = caf_opus() if container == "caf" else encode_media(container=container, codec=codec)
    with pytest.raises(NotAudioError, match=f"^{name} needs the extra 'media'"):
        decode(clip)


def test_amr_with_silence_frames_is_whole() -> None:
    frames = amr()[6:]
    speech = [frames[start : start + 13] for start in range(0, len(frames), 13)]
    silence = [b"\x44" + bytes(5), b"\x7c", b"\x7c"]  # its description, then nothing
    clip = b"#!AMR\n" + b"".join(speech[:20] + silence * 20 + speech[20:])
    info = decode(clip).info
    assert info.duration_s == pytest.approx(0.02 * (len(speech) + 60))
    assert info.warnings == ()


def two_tracks(first: np.ndarray, second: np.ndarray, default: int | None) -> bytes:
    """An MKV with two sound tracks, one of them marked as default."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        streams = [out.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.disposition = Disposition.default if number == default else Disposition(0)
        for stream, samples in zip(streams, (first, second), strict=True):
            packed = (samples[None] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout="mono")
            frame.sample_rate = 16_000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                out.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize("order", [1, -1])
def test_a_silent_track_hides_no_speech(default: int, order: int) -> None:
    speech, silence = speechlike(2), np.zeros(32_000)
    tracks = [speech, silence][::order]
    recording = decode(two_tracks(*tracks, default))
    number = 1 if order == 1 else 2
    assert likeness(recording.waveforms[0].samples, speech) > 0.99
    assert f"has 2 sound tracks; number {number} was read" in recording.info.warnings[0]
    assert (len(recording.info.warnings) == 2) is (default != number - 1)


def test_of_two_tracks_the_default_is_read() -> None:
    first, second = speechlike(2, seed=1), speechlike(2, seed=2)
    for default in (0, 1):
        recording = decode(two_tracks(first, second, default))
        assert likeness(recording.waveforms[0].samples, [first, second][default]) > 0.99
        (warning,) = recording.info.warnings
        assert warning == f"The MATROSKA has 2 sound tracks; number {default + 1} was read."


@pytest.mark.parametrize(("container", "name"), [("amr", "AMR"), ("3gp", "MP4")])
def test_amr_gives_the_syllables_back(container: str, name: str) -> None:
    recording = decode(amr(container))
    assert (recording.info.format, recording.info.sample_rate_hz) == (name, 8_000)
    assert recording.info.duration_s == pytest.approx(1.52)
    decoded = recording.waveforms[0].samples
    assert likeness(envelope(decoded), envelope(speechlike(1.5))) > 0.97  # it keeps no waveform


@pytest.mark.parametrize("codec", ["aac", "alac", "pcm_s16le"])
def test_channels_are_mixed_or_split(codec: str) -> None:
    left, right = speechlike(2, seed=1), speechlike(2, seed=2)
    clip = encode_media(np.stack([left, right], axis=1), container="mov", codec=codec)
    (mixed,) = decode(clip).waveforms
    assert likeness(mixed.samples, (left + right) / 2) > 0.99
    first, second = decode(clip, channels="split").waveforms
    assert likeness(first.samples, left) > 0.99
    assert likeness(second.samples, right) > 0.99


def test_lossless_samples_are_the_ones_that_were_sent() -> None:
    samples = np.round(speechlike() * 32_768) / 32_768
    for container, codec in (("mov", "pcm_s16le"), ("matroska", "flac"), ("ipod", "alac")):
        decoded = decode(encode_media(samples, container=container, codec=codec)).waveforms[0]
        assert np.array_equal(decoded.samples, samples.astype(np.float32))


@pytest.mark.parametrize("options", [{}, FASTSTART, FRAGMENTED], ids=["end", "start", "fragments"])
@pytest.mark.parametrize("video", [False, True])
def test_the_index_may_stand_anywhere(options: dict[str, str], video: bool) -> None:
    clip = encode_media(speechlike(3), video=video, **options)
    assert (clip.find(b"moov") > clip.find(b"mdat")) is (options == {})
    assert likeness(decode(clip).waveforms[0].samples, speechlike(3)) > 0.97


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "aac"), ("mov", "aac"), ("avi", "mp3"), ("matroska", "aac"), ("mpegts", "aac")],
)
def test_the_sound_of_a_video_is_decoded(container: str, codec: str) -> None:
    clip = encode_media(speechlike(3), container=container, codec=codec, video=True)
    assert decode(clip).info.duration_s == pytest.approx(3, abs=0.15)
    silent = encode_media(container=container, codec=None, video=True)
    with pytest.raises(NotAudioError, match="holds no audio; send one with a sound track"):
        decode(silent)


def test_what_a_browser_sends_while_it_records_needs_no_length() -> None:
    clip = encode_media(speechlike(3, 48_000), 48_000, container="webm", codec="libopus", live="1")
    info = decode(clip).info
    assert info.duration_s == pytest.approx(3, abs=0.05)
    assert info.warnings == ()
    assert 1 < decode(clip[: len(clip) // 2]).info.duration_s < 2


def test_a_piece_without_header_is_named() -> None:
    clip = encode_media(speechlike(8, 48_000), 48_000, container="webm", codec="libopus", live="1")
    cluster = clip.index(b"\x1f\x43\xb6\x75")
    for start in (
        cluster,
        clip.index(b"\x1f\x43\xb6\x75", cluster + 4),
        clip.index(b"\xa3", cluster),
    ):
        with pytest.raises(NotAudioError, match="piece of WebM without its header"):
            decode(clip[start:])
    fragments = encode_media(speechlike(3), **FRAGMENTED)
    with pytest.raises(NotAudioError, match="piece of MP4 without its header"):
        decode(fragments[fragments.index(b"moof") - 4 :])


@pytest.mark.usefixtures("in_process")
def test_a_codec_that_is_not_on_the_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = encode_media(container="mov")
    monkeypatch.setattr(ffmpeg, "_DECODERS", "flac,alac")
    with pytest.raises(NotAudioError, match="The audio in this MP4 is encoded as 'aac'"):
        decode(clip)


def test_aac_behind_tags_is_found() -> None:
    clip = encode_media(container="adts")
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)
    assert decode(tag + clip).info.format == "AAC"
    assert decode(encode(speechlike(), container="MP3")).info.format == "MP3"


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, rate: int) -> None:
    clip = encode_media(speechlike(3, rate), rate)
    outputs = []
    for block_samples in (1 << 30, 1 << 14, 1):
        monkeypatch.setattr(ffmpeg, "BLOCK_SAMPLES", block_samples)
        outputs.append(decode(clip).waveforms[0].samples)
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_an_mp4_cut_short_is_refused(part: float) -> None:
    clip = encode_media(speechlike(4))
    with pytest.raises(NotAudioError, match="incomplete or damaged"):
        decode(clip[: int(part * len(clip))])  # its index is at the end
    clip = encode_media(speechlike(4), **FASTSTART)
    with pytest.raises(DamagedAudioError, match=r"stopped after about \d\.\d s"):
        decode(clip[: int(part * len(clip))])


@pytest.mark.parametrize("container", ["adts", "amr"])
def test_a_stream_cut_within_a_frame_is_damage(container: str) -> None:
    clip = amr() if container == "amr" else encode_media(container=container)
    with pytest.raises(DamagedAudioError):
        decode(clip[:-3])


def test_a_webm_cut_short_is_shorter() -> None:
    clip = encode_media(speechlike(4, 48_000), 48_000, container="webm", codec="libopus")
    info = decode(clip[: len(clip) // 2]).info
    assert 1 < info.duration_s < 3
    assert "states 4.0" in info.warnings[0]


def test_an_mp4_without_samples_is_an_error_not_silence() -> None:
    clip = encode_media()
    start, end = boxes(clip, (b"mdat",))
    with pytest.raises(DamagedAudioError):
        decode(clip[:start] + bytes(end - start) + clip[end:])


def test_damage_in_the_middle_is_found() -> None:
    clip = encode_media(speechlike(4), codec="alac", container="ipod")
    start, end = boxes(clip, (b"mdat",))
    middle = (start + end) // 2
    with pytest.raises(DamagedAudioError, match=r"after about 1\.\d s"):
        decode(clip[:middle] + b"\xff" * 2_000 + clip[middle + 2_000 :])


def test_samples_that_are_not_numbers_are_damage() -> None:
    samples = speechlike()
    samples[8_000] = np.nan
    with pytest.raises(DamagedAudioError, match=r"sample at 0\.500 s"):
        decode(encode_media(samples, container="mov", codec="pcm_f32le"))


def with_length(clip: bytes, seconds: float) -> bytes:
    """Let header and index of an MP4 at 16 kHz say another length: FFmpeg takes the shorter."""
    start, _ = boxes(clip, (*SAMPLE_TABLE, b"stts"))
    (num_packets,) = struct.unpack(">I", clip[start + 8 : start + 12])
    clip = with_field(clip, (*SAMPLE_TABLE, b"stts"), 12, round(seconds * 16_000 / num_packets))
    return with_field(clip, (b"moov", b"trak", b"mdia", b"mdhd"), 16, round(seconds * 16_000))


def test_a_header_that_promises_ten_hours_is_believed() -> None:
    clip = with_length(encode_media(speechlike(1), use_editlist="0"), 36_000)
    with pytest.raises(AudioTooLongError, match=r"36000\.\d s .* at most 7200 s"):
        decode(clip)


def test_a_header_that_promises_less_is_not() -> None:
    clip = with_length(encode_media(speechlike(5), use_editlist="0"), 0.5)
    assert "states 0." in decode(clip).info.warnings[0]
    with pytest.raises(AudioTooLongError, match="at most 3 s"):
        decode(clip, limits=Limits(max_duration_s=3))


@pytest.mark.parametrize("size", [0, 1, 0x7FFFFFFF])
@pytest.mark.parametrize("count", [60_000_000, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("box", ["stsz", "stsc", "stts", "all"])
def test_an_index_that_lies_takes_no_memory(size: int, count: int, box: str) -> None:
    clip = encode_media()
    if box in ("stsz", "all"):
        clip = with_field(with_field(clip, SIZES, 4, size), SIZES, 8, count)
    if box in ("stsc", "all"):
        clip = with_field(clip, (*SAMPLE_TABLE, b"stsc"), 12, count)
    if box in ("stts", "all"):
        clip = with_field(clip, (*SAMPLE_TABLE, b"stts"), 8, count)
    before = peak_bytes()
    with contextlib.suppress(AudioError):
        decode(clip)
    assert peak_bytes() - before < 64 << 20


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.usefixtures("in_process")
def test_a_header_without_end_is_not_read_to_its_end() -> None:
    class Endless(io.BytesIO):
        num_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            Endless.num_bytes += len(data)
            return data

    attachment = b"\x61\xa7" + ebml_size(10 << 20) + b"\x46\x5c" + ebml_size((10 << 20) - 10)
    attachment += bytes((10 << 20) - 10)
    webm = encode_media(rate=48_000, container="webm", codec="libopus")
    segment = webm.index(b"\x18\x53\x80\x67") + 12  # behind the id and an eight-byte size
    attachments = b"\x19\x41\xa4\x69" + ebml_size(20 * len(attachment)) + 20 * attachment
    file = Endless(webm[:segment] + attachments + webm[segment:])
    with pytest.raises(AudioError):
        decode(file)
    assert Endless.num_bytes < ffmpeg._MAX_HEADER_BYTES + (1 << 20)


def ebml_size(size: int) -> bytes:
    return struct.pack(">Q", size | 1 << 56)


@pytest.mark.usefixtures("in_process")
def test_packets_without_sound_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = encode_media(speechlike(3))
    monkeypatch.setattr(ffmpeg, "_FREE_PACKETS", 10)
    monkeypatch.setattr(ffmpeg, "_PACKETS_PER_SECOND", 5)  # AAC at 16 kHz has 16
    with pytest.raises(DamagedAudioError, match=r"packets hold .* s of audio"):
        decode(clip)


def test_too_short_and_too_many_channels() -> None:
    with pytest.raises(AudioTooShortError, match=r"at least 0\.1 s"):
        decode(encode_media(speechlike(0.05), container="mov", codec="pcm_s16le"))
    clip = encode_media(np.stack([speechlike()] * 6, axis=1), container="mov", codec="pcm_s16le")
    with pytest.raises(NotAudioError, match="6 channels; at most 4"):
        decode(clip, limits=Limits(max_channels=4))
    with pytest.raises(AudioTooLongError, match="in each of 6 channels"):
        decode(clip, channels="split", limits=Limits(max_duration_s=8))


NOT_MEDIA = {
    "mp4": b"\x00\x00\x00\x20ftypisom" + bytes(2_000),
    "mp4 of noise": b"\x00\x00\x00\x20ftypisom"
    + np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes(),
    "webm": b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01webm" + bytes(2_000),
    "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(2_000),
    "amr": b"#!AMR\n",
    "amr of half a frame": b"#!AMR\n\x3c" + bytes(10),
    "adts": b"\xff\xf1" * 1_000,
    "avi": b"RIFF\xff\xff\xff\xffAVI " + bytes(500),
    "flv": b"FLV\x01\x05\x00\x00\x00\x09" + bytes(500),
    "mpegts": (b"G" + bytes(187)) * 20,
    "mpeg": b"\x00\x00\x01\xba" + bytes(1_000),
}


@pytest.mark.parametrize("name", NOT_MEDIA)
def test_what_only_begins_like_media_is_refused_without_leaks(name: str) -> None:
    with pytest.raises(AudioError) as caught:
        decode(NOT_MEDIA[name])
    for word in ("object at", "avcodec", "libav", "Errno", "none"):
        assert word not in str(caught.value)


def test_every_cut_and_every_flipped_byte_is_handled() -> None:
    rng = np.random.default_rng(0)
    kinds = [("mp4", "aac", 16_000), ("webm", "libopus", 48_000), ("adts", "aac", 16_000)]
    kinds += [("asf", "wmav2", 44_100), ("avi", "mp3", 16_000), ("amr", "", 0)]
    before = peak_bytes()
    for container, codec, rate in kinds:
        bit_rate = 128_000 if codec == "wmav2" else None
        clip = amr()
        if codec:
            clip = encode_media(
                speechlike(0.5, rate), rate, container=container, codec=codec, bit_rate=bit_rate
            )
        for _ in range(40):
            hostile = bytearray(clip[: rng.integers(len(clip) // 2, len(clip) + 1)])
            for position in rng.integers(0, len(hostile), 8):
                hostile[position] = rng.integers(256)
            with contextlib.suppress(AudioError):
                decode(io.BytesIO(hostile), limits=Limits(max_duration_s=60))
    assert peak_bytes() - before < 128 << 20


@pytest.mark.usefixtures("in_process")
def test_other_files_and_addresses_are_never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording is all that FFmpeg gets to see: lists of other files are not media for us."""
    for text in (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile x.wav"):
        with pytest.raises(NotAudioError, match="Unsupported audio format"):
            decode(text)
    asked: list[str] = []
    monkeypatch.setattr(ffmpeg, "_refuse_to_open", lambda url, *_: asked.append(url))
    clip = encode_media(container="mov", codec="pcm_s16le")
    entry, _ = boxes(clip, (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"))
    alias = clip[: entry + 12] + b"alis" + struct.pack(">I", 0) + clip[entry + 20 :]
    with contextlib.suppress(AudioError):
        decode(alias)
    assert asked == []


@pytest.fixture
def _no_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "av", None)
    ffmpeg.load_av.cache_clear()
    yield
    ffmpeg.load_av.cache_clear()


@pytest.mark.usefixtures("_no_extra", "in_process")
@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [("mp4", "aac", "MP4"), ("webm", "libopus", "WEBM"), ("adts", "aac", "AAC")],
)
def test_without_the_extra_the_refusal_says_how_to_install_it(
    container: str, codec: str, name: str
) -> None:
    clip = CLIPS[container]
    with pytest.raises(NotAudioError) as caught:
        decode(clip)
    assert str(caught.value).startswith(f"{name} needs the extra 'media'")
    assert "pip install 'nnpm[media]'" in str(caught.value)
    assert decode(encode(speechlike())).info.format == "WAV"


CLIPS = {
    "mp4": encode_media(),
    "webm": encode_media(rate=48_000, container="webm", codec="libopus"),
    "adts": encode_media(container="adts"),
}


def test_no_threads_are_left_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count(), num_threads()
    for clip in CLIPS.values():
        decode(clip)
    with pytest.raises(AudioError):
        decode(CLIPS["mp4"][: len(CLIPS["mp4"]) // 2])
    # fewer, where threads of an earlier test have ended meanwhile
    assert threading.active_count() <= threads[0]
    assert num_threads() <= threads[1]
    assert capfd.readouterr() == ("", "")


def num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
