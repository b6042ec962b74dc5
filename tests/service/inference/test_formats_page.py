"""The page of formats is current, and true: a file of each container and codec is read."""

import shutil
import subprocess
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.formats import FORMATS
from scripts.formats_page import PAGE, page
from tests.support.media import amr, encode_media
from tests.support.sounds import encode, speechlike


def sound(container: str, subtype: str | None = None, rate: int = 16_000) -> Callable[[], bytes]:
    samples = speechlike(rate=rate)
    return partial(encode, samples, rate, container=container, subtype=subtype)


def media(container: str, codec: str, rate: int = 16_000, **how: int) -> Callable[[], bytes]:
    return partial(
        encode_media, speechlike(rate=rate), rate, container=container, codec=codec, **how
    )


_ENCODERS = {
    "AAC": ("aac", 16_000), "ALAC": ("alac", 16_000), "MP3": ("mp3", 16_000),
    "MP2": ("mp2", 16_000),
    "AC-3": ("ac3", 48_000), "FLAC": ("flac", 16_000), "Opus": ("libopus", 48_000),
    "PCM": ("pcm_s16le", 16_000), "WMA": ("wmav2", 44_100),
    "Yamaha ADPCM": ("adpcm_yamaha", 16_000),
    "G.722": ("g722", 16_000), "G.726": ("g726", 8000),
}  # fmt: skip
_MUXERS = {
    "WEBM": "webm", "MATROSKA": "matroska", "MP4": "mov", "ASF": "asf", "AAC": "adts", "AVI": "avi",
    "FLV": "flv", "MPEG-PS": "vob", "MPEG-TS": "mpegts", "WAV": "wav", "CAF": "caf",
    "Ogg (Opus or Vorbis)": "ogg",
}  # fmt: skip
_SUBTYPES = {
    "IMA ADPCM": "IMA_ADPCM", "MS ADPCM": "MS_ADPCM", "GSM 6.10": "GSM610", "A-law": "ALAW",
    "mu-law": "ULAW", "floats": "FLOAT", "Opus": "OPUS", "Vorbis": "VORBIS",
    "ALAC": "ALAC_16", "FLAC": None, "MP3": None,
    "PCM": "PCM_24",
}  # fmt: skip
_SOUND_FILES = {"Ogg (Opus or Vorbis)": "OGG"}
NOT_MADE = {
    ("WEBM", "Vorbis"), ("MATROSKA", "Vorbis"),  # FFmpeg's own encoder is an experiment
    ("Ogg (Opus or Vorbis)", "Speex"),  # nothing here writes it
    ("CAF", "AAC"), ("CAF", "Opus"),  # FFmpeg reads them, and does not write them
}  # fmt: skip


def maker(container: str, codec: str, *, with_media: bool) -> Callable[[], bytes]:
    """What makes a file of the pair."""
    if codec == "AMR":
        return partial(amr, "3gp" if container == "MP4" else "amr")
    if not with_media and (container, codec) not in {("WAV", "MP3"), ("WAV", "MP2")}:
        subtype = _SUBTYPES.get(codec, codec)
        rate = 8000 if codec == "GSM 6.10" else 16_000
        return sound(_SOUND_FILES.get(container, container), subtype, rate)
    encoder, rate = _ENCODERS[codec]
    if container == "MP4" and codec in ("FLAC", "Opus"):
        return media("mp4", encoder, rate)
    if container == "FLV":  # which has its own rates
        rate = 44_100
    return media(
        _MUXERS[container], encoder, rate, **({"bit_rate": 64_000} if codec == "WMA" else {})
    )


PAIRS = [
    (row.name, codec, with_media)
    for row in FORMATS
    for with_media, codecs in ((False, row.codecs), (True, row.media_codecs))
    for codec in codecs
    if (row.name, codec) not in NOT_MADE
]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make formats"


@pytest.mark.parametrize(("container", "codec", "with_media"), PAIRS)
def test_a_file_of_each_pair_is_read(container: str, codec: str, with_media: bool) -> None:
    (waveform,) = decode(maker(container, codec, with_media=with_media)()).waveforms
    assert 1.2 < waveform.duration_s < 2.2
    assert np.abs(waveform.samples).max() > 0.05


# As SoX writes to a pipe, where it cannot go back to fill the sizes in.
SOX = ["wav -e signed -b 16", "wav -e signed -b 24", "wav -e floating-point -b 32", "wav -e mu-law",
       "wav -e a-law", "wav -e ima-adpcm", "wav -e ms-adpcm", "wav -e gsm-full-rate -r 8000",
       "aiff", "aifc", "au", "flac", "ogg", "mp3", "amr-nb -r 8000", "w64"]  # fmt: skip


@pytest.mark.skipif(shutil.which("sox") is None, reason="SoX is not installed")
@pytest.mark.parametrize("kind", SOX)
def test_what_sox_writes_to_a_pipe_is_read(kind: str) -> None:
    command = ["sox", "-t", "wav", "-", "-t", *kind.split(), "-"]
    made = subprocess.run(command, input=encode(speechlike()), capture_output=True)
    if b"no handler" in made.stderr:
        pytest.skip("SoX has no plug-in for it (libsox-fmt-all)")
    assert made.returncode == 0, made.stderr
    (waveform,) = decode(made.stdout).waveforms
    assert waveform.duration_s == pytest.approx(1.5, abs=0.15)
    assert np.abs(waveform.samples).max() > 0.05
