"""Recordings joined end to end, headers that disagree with what follows them, trailing bytes."""

import contextlib
import io
import struct

import numpy as np
import pytest

from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.joined import index_frame, mp3_pieces, ogg_pieces
from nnpm.service.inference.errors import AudioError, NotAudioError
from tests.support.hostile.ogg import pages
from tests.support.hostile.seeds import id3
from tests.support.sounds import encode, speechlike

MP3 = encode(speechlike(4), container="MP3")
OGG = {
    kind: encode(speechlike(2, seed=3), container="OGG", subtype=kind)
    for kind in ("VORBIS", "OPUS")
}


def pieces(clip: bytes) -> list:
    return mp3_pieces(io.BytesIO(clip), 0, len(clip))


def without_index(clip: bytes) -> bytes:
    return clip[pieces(clip)[0].first_frame_bytes :]


def with_index(clip: bytes, num_frames: int) -> bytes:
    at = max(clip.find(b"Xing"), clip.find(b"Info")) + 8
    return clip[:at] + struct.pack(">I", num_frames) + clip[at + 4 :]


@pytest.mark.parametrize("kind", OGG)
def test_a_chained_ogg_is_read_to_the_end_of_its_last_link(kind: str) -> None:
    link = OGG[kind]
    other = encode(speechlike(1), container="OGG", subtype=kind)
    assert len(ogg_pieces(io.BytesIO(link + other + link))) == 3
    recording = decode(link + other + link)
    assert recording.info.duration_s == pytest.approx(5, abs=0.01)
    assert recording.info.warnings == ("The Ogg holds 3 recordings; all of them were read.",)
    alone = decode(link).waveforms[0].samples
    np.testing.assert_allclose(recording.waveforms[0].samples[-16_000:], alone[-16_000:], atol=1e-5)


def test_links_of_different_shape_are_converted() -> None:
    stereo = encode(np.stack([speechlike(1, 44_100)] * 2, axis=1), 44_100, container="OGG")
    recording = decode(OGG["VORBIS"] + stereo + OGG["VORBIS"])
    assert (recording.info.sample_rate_hz, recording.info.channels) == (16_000, 1)
    assert recording.info.duration_s == pytest.approx(5, abs=0.01)
    assert "From 2.0 s on the OGG has 44100 Hz and 2 channels" in recording.info.warnings[1]
    alone = decode(stereo).waveforms[0].samples
    np.testing.assert_allclose(recording.waveforms[0].samples[32_000:48_000], alone, atol=1e-3)
    other = encode(np.stack([speechlike(2, 8_000)] * 2, axis=1), 8_000, container="MP3")
    assert decode(MP3 + other).info.duration_s == pytest.approx(6, abs=0.1)
    assert decode(other + MP3).info.channels == 2


@pytest.mark.parametrize("kind", OGG)
def test_an_ogg_that_breaks_off_warns(kind: str) -> None:
    clip = encode(speechlike(20), container="OGG", subtype=kind)
    *_, (last, _end) = pages(clip)
    for cut in (clip[:last], clip[: last - 10]):
        info = decode(cut).info
        assert 5 < info.duration_s < 20
        assert "The Ogg breaks off" in info.warnings[0]
    assert decode(clip).info.warnings == ()


@pytest.mark.parametrize(
    ("rate", "num_channels"), [(8_000, 1), (16_000, 2), (44_100, 1), (44_100, 2)]
)
def test_an_mp3_without_index_is_read_to_the_end(rate: int, num_channels: int) -> None:
    samples = np.stack([speechlike(4, rate)] * num_channels, axis=1)
    samples[: 2 * rate] *= 0.01  # a bit rate that changes: the first frame tells nothing
    clip = without_index(encode(samples, rate, container="MP3"))
    info = decode(clip).info
    assert info.duration_s == pytest.approx(4, abs=0.15)
    assert info.warnings == ()
    assert (info.sample_rate_hz, info.channels) == (rate, num_channels)


def test_joined_mp3_are_read_to_the_end() -> None:
    info = decode(MP3 + MP3).info
    assert info.duration_s == 8
    assert info.warnings == ("The MP3 consists of 2 pieces; all of them were read.",)
    assert decode(MP3 + without_index(MP3)).info.duration_s == pytest.approx(8, abs=0.2)
    assert decode(id3(b"") + MP3 + id3(bytes(5000)) + MP3).info.duration_s == 8


def test_an_index_that_states_less_is_not_believed() -> None:
    info = decode(with_index(MP3, 10)).info
    assert info.duration_s == pytest.approx(4, abs=0.15)


def test_an_mp3_may_start_with_something_else() -> None:
    for before in (bytes(3_000), MP3[-100:], b"\xff" * 50, b"junk that is no frame"):
        recording = decode(before + MP3)
        assert recording.info.format == "MP3"
        assert recording.info.duration_s == 4
    with pytest.raises(NotAudioError):
        decode(bytes(100_000))
    with pytest.raises(NotAudioError):
        decode(np.random.default_rng(1).bytes(200_000))


def test_an_index_that_is_made_states_the_length() -> None:
    (piece,) = pieces(without_index(MP3))
    frame = index_frame(piece)
    (again,) = pieces(frame + without_index(MP3))
    assert again.indexed_frames == again.num_frames == piece.num_frames


def test_tags_and_bytes_behind_a_flac_do_no_harm() -> None:
    clip = encode(speechlike(2), container="FLAC")
    samples = decode(clip).waveforms[0].samples
    for behind in (
        b"\0",
        b"TAG" + bytes(125),
        b"APETAGEX" + bytes(200),
        bytes(10_000),
        b"\xff\xf8" * 9,
    ):
        recording = decode(clip + behind)
        assert np.array_equal(recording.waveforms[0].samples, samples)


def test_mp3_in_wav_is_read() -> None:
    fmt = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16_000, 8_000, 1, 0, 12, 1, 2, 1152, 1, 1393)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    for audio in (MP3, without_index(MP3)):
        data = b"data" + struct.pack("<I", len(audio)) + audio
        clip = b"RIFF" + struct.pack("<I", len(body + data)) + body + data
        info = decode(clip).info
        assert info.format == "WAV"
        assert info.duration_s == pytest.approx(4, abs=0.15)


def test_a_codec_that_no_library_knows_is_named() -> None:
    wav = bytearray(encode(speechlike()))
    wav[20:22] = b"\x34\x12"
    with pytest.raises(NotAudioError, match="0x1234"):
        decode(bytes(wav))


def with_stated(clip: bytes, container: str, share: float) -> bytes:
    """Let the header of an AU or AIFF state such a share of the samples that are there."""
    if container == "AU":
        fields = [(8, 0)]
    else:
        fields = [(clip.index(b"COMM") + 10, 0), (clip.index(b"SSND") + 4, 8)]
    made = bytearray(clip)
    for at, fixed in fields:
        (value,) = struct.unpack_from(">I", clip, at)
        struct.pack_into(">I", made, at, round((value - fixed) * share) + fixed)
    return bytes(made)


@pytest.mark.parametrize("container", ["AU", "AIFF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_headers_that_state_more_or_less_than_there_is(container: str, subtype: str) -> None:
    clip = encode(speechlike(2), container=container, subtype=subtype)
    whole = decode(clip)
    assert whole.info.warnings == ()
    (warning,) = decode(with_stated(clip, container, 2)).info.warnings
    assert warning == f"The {container} breaks off: its header states 4.00 s, and 2.00 s are there."
    half = decode(clip[: len(clip) // 2])
    assert half.info.duration_s == pytest.approx(1, abs=0.02)
    assert "breaks off" in half.info.warnings[0]
    less = decode(with_stated(clip, container, 0.5))
    assert less.info.duration_s == 2
    assert np.array_equal(less.waveforms[0].samples, whole.waveforms[0].samples)
    assert "1.00 s more follow and were read" in less.info.warnings[0]


def test_placeholders_of_streaming_writers_are_silent() -> None:
    au = encode(speechlike(2), container="AU", subtype="PCM_16")
    for size in (0, 0xFFFFFFFF):
        info = decode(au[:8] + struct.pack(">I", size) + au[12:]).info
        assert (info.duration_s, info.warnings) == (2, ())
    ima = encode(speechlike(2), container="WAV", subtype="IMA_ADPCM")
    at = ima.index(b"data") + 4
    for size in (0, 0xFFFFFFFF):
        head = ima[:4] + struct.pack("<I", size) + ima[8:at] + struct.pack("<I", size)
        info = decode(head + ima[at + 4 :]).info
        assert info.duration_s == pytest.approx(2, abs=0.1)
        assert info.warnings == ()


def test_a_caf_that_breaks_off_warns() -> None:
    clip = encode(speechlike(2), container="CAF", subtype="PCM_16")
    assert decode(clip).info.warnings == ()
    info = decode(clip[:-32_000]).info
    assert info.duration_s == pytest.approx(1, abs=0.01)
    assert "The CAF breaks off: its header states 2.00 s, and 1.00 s are there." in info.warnings


@pytest.mark.parametrize("container", ["AU", "AIFF", "CAF"])
def test_damaged_headers_are_answered_or_refused(container: str) -> None:
    clip = encode(speechlike(0.5), container=container)
    rng = np.random.default_rng(0)
    for _ in range(30):
        bent = bytearray(clip)
        for position in rng.integers(4, 90, 3):
            bent[position] = rng.integers(256)
        with contextlib.suppress(AudioError):
            decode(bytes(bent))
