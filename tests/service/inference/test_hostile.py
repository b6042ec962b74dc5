"""Files made to do harm: each is decoded or refused, in bounded time and memory, in silence."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference.audio import decoder, reader
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.formats import FORMATS, format_of
from nnpm.service.inference.audio.waveform import Limits
from nnpm.service.inference.errors import AudioError, AudioTooLongError, CostlyAudioError
from tests.support.hostile.bending import bent, repeated, truncated
from tests.support.hostile.bombs import bombs
from tests.support.hostile.judge import faults, flush_c_streams
from tests.support.hostile.seeds import id3, seeds
from tests.support.hostile.spinning import spinning_wav
from tests.support.hostile.watch import resident_mib, watched
from tests.support.sounds import encode, speechlike

CASES = int(os.environ.get("HOSTILE_CASES", "200"))
"""Tried of each clip; there are up to 4000, and `make fuzz` tries them all."""

ROOT = Path(__file__).parents[3]
DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture(autouse=True)
def _in_silence(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing is printed, by C libraries neither."""
    yield
    flush_c_streams()
    assert capfd.readouterr() == ("", "")


def cases(name: str) -> list[tuple[str, bytes]]:
    clip = seeds()[name]
    return list(chain(bent(clip), truncated(clip), repeated(clip)))


def some(name: str, count: int) -> list[tuple[str, bytes]]:
    """So many of the cases of a clip, from all of its header."""
    everything = cases(name)
    return everything[:: max(1, len(everything) // count)]


@pytest.mark.parametrize("name", seeds())
def test_some_bent_fields_do_no_harm(name: str) -> None:
    assert faults(some(name, 20)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", seeds())
def test_bent_fields_cuts_and_repetitions_do_no_harm(name: str) -> None:
    faults(some(name, 20))
    before_mib = resident_mib()
    assert faults(some(name, CASES)) == []
    assert resident_mib() - before_mib < 24


def test_no_file_stays_open(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    for name in seeds():
        for _, data in some(name, 5):
            clip.write_bytes(data)
            with contextlib.suppress(AudioError):
                decode(clip)
    if DESCRIPTORS.exists():
        assert clip not in [Path(path).resolve() for path in DESCRIPTORS.iterdir()]


def test_the_corpus_reaches_the_decoders() -> None:
    """Were all refused at the first byte, or all read, nothing would be tested."""
    for name in ("WAV PCM_16", "FLAC PCM_16", "OGG VORBIS", "OGG OPUS", "MP3 MPEG_LAYER_III"):
        outcomes = set()
        for _, data in some(name, 100):
            try:
                decode(data, limits=Limits(max_duration_s=60))
                outcomes.add("ok")
            except Exception as error:
                outcomes.add(type(error).__name__)
        assert {"ok", "NotAudioError"} < outcomes, name


@pytest.mark.parametrize("name", [n for n in bombs() if n != "100 MB of tag in the middle"])
def test_bombs_do_no_harm(name: str) -> None:
    assert faults([(name, bombs()[name]())]) == []


TOO_LONG = [name for name in bombs() if name.startswith("ten hours") and not name.endswith("lie")]


@pytest.mark.parametrize("name", TOO_LONG)
def test_ten_hours_are_refused(name: str) -> None:
    with pytest.raises(AudioTooLongError, match="at most 60 s"):
        decode(bombs()[name](), limits=Limits(max_duration_s=60))


def test_a_header_of_a_second_over_ten_hours_gives_a_second() -> None:
    for name in ("ten hours of FLAC that lie", "ten hours of Opus that lie"):
        assert decode(bombs()[name]()).info.duration_s == pytest.approx(1.0, abs=0.01)


@pytest.mark.slow
def test_a_tag_larger_than_the_budget_is_passed_over() -> None:
    clip = bombs()["100 MB of tag in the middle"]()

    def judge() -> None:
        info = decode(clip).info
        assert info.duration_s > 0.5
        assert info.warnings == ("The MP3 consists of 2 pieces; all of them were read.",)

    assert watched(judge).peak_mib < 16


def test_tags_are_skipped_whatever_follows_them() -> None:
    for container in ("MP3", "FLAC", "WAV"):
        clip = encode(speechlike(), container=container)
        plain = decode(clip)
        tagged = decode(id3(bytes(999)) + id3(bytes(99)) + clip)
        assert tagged.info == plain.info
        assert (tagged.waveforms[0].samples == plain.waveforms[0].samples).all()


class Clock:
    """Half a second goes by at every look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.5
        return self.now_s


@pytest.mark.parametrize("container", ["FLAC", "OGG", "MP3"])
def test_slow_decoding_ends(monkeypatch: pytest.MonkeyPatch, container: str) -> None:
    clip = encode(speechlike(20, rate=48_000), 48_000, container=container)
    monkeypatch.setattr(reader.time, "thread_time", Clock())
    monkeypatch.setattr(reader, "CPU_S_PER_AUDIO_S", 0.0)
    with pytest.raises(CostlyAudioError, match=r"took \d+\.\d s for \d+\.\d s of audio"):
        decode_here(clip, monkeypatch)


def test_long_audio_earns_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = encode(speechlike(20, rate=48_000), 48_000, container="FLAC")
    monkeypatch.setattr(reader.time, "thread_time", Clock())
    monkeypatch.setattr(reader, "CPU_S_PER_AUDIO_S", 1000.0)
    decode_here(clip, monkeypatch)


def decode_here(clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a decoder process does, without its limit that ends the process."""
    monkeypatch.setattr(decoder, "_allow", lambda _: None)
    file = io.BytesIO(clip)
    row = format_of(file)
    assert row is not None
    for _ in decoder.messages(file, FORMATS.index(row)):
        pass


def test_libraries_print_nothing(tmp_path: Path) -> None:
    """libmpg123 complains on standard error, libsndfile's ALAC on standard output."""
    (tmp_path / "clip").write_bytes(bombs()["frames and junk in turn"]())
    code = (
        "import pathlib, sys; from nnpm.service.inference.audio.decode import decode\n"
        "decode(pathlib.Path(sys.argv[1]))\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "clip"], capture_output=True, cwd=ROOT, check=True
    )
    assert (child.stdout, child.stderr) == (b"", b"")


OPENERS = {
    "RIFF": "WAV IMA_ADPCM", "RF64": "RF64 PCM_16", "W64": "W64 PCM_16", "AIFF": "AIFF PCM_16",
    "CAF": "CAF PCM_16", "AU": "AU ULAW", "Ogg": "OGG OPUS", "FLAC": "FLAC PCM_16",
    "MP3": "MP3 MPEG_LAYER_III", "MP4": "mp4 aac", "WebM": "webm libopus",
}  # fmt: skip
"""The parsers of headers, and a clip that reaches each."""

OPEN_S = 10.0
"""What no input may take on a busy machine; decoder processes are ended after 0.3 s of CPU."""


@pytest.mark.parametrize("name", OPENERS)
def test_no_header_keeps_an_opener_busy(name: str) -> None:
    """Sizes of pieces that are negative, zero or huge: a parser must not go back, nor stay."""
    if OPENERS[name] not in seeds():
        pytest.skip("needs the extra media")
    clip = seeds()[OPENERS[name]]
    rng = np.random.default_rng(0)
    for _ in range(max(20, CASES // 8)):
        bent = bytearray(clip)
        for position in rng.integers(4, min(200, len(clip) - 8), rng.integers(1, 4)):
            size = int(rng.choice([1, 2, 4, 8]))
            value = int(rng.choice([0, 1, 8, -1, -2, -4, -8, -12, -16, 1 << 30])) % (1 << 8 * size)
            order = "little" if rng.random() < 0.5 else "big"
            bent[position : position + size] = value.to_bytes(size, order)
        started_s = time.monotonic()
        with contextlib.suppress(AudioError):
            decode(bytes(bent), limits=Limits(max_duration_s=60))
        assert time.monotonic() - started_s < OPEN_S, bytes(bent[:256]).hex()


@pytest.mark.parametrize("subtype", ["PCM_16", "IMA_ADPCM"])
def test_one_bad_file_leaves_the_next_alone(subtype: str) -> None:
    for _ in range(2):
        with contextlib.suppress(AudioError):
            decode(spinning_wav(subtype))
        assert decode(encode(speechlike(), container="FLAC")).info.duration_s == 1.5
