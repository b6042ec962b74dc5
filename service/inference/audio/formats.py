"""Audio files in a folder.

What a file is, by its first bytes; its name and what was said of it do not count.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SOUND_SUFFIXES = (
    *(".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd"),
    *(".w64", ".wav"),
)
# Read with the extra "media". Not .ts, which is TypeScript more often than it is television.
_MEDIA_SUFFIXES = (
    *(".3g2", ".3gp", ".aac", ".amr", ".asf", ".avi", ".awb", ".flv", ".m4a", ".m4b", ".m4v"),
    *(".mka", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wma", ".wmv"),
)

AUDIO_SUFFIXES = frozenset({*_SOUND_SUFFIXES, *_MEDIA_SUFFIXES})
"""Names of files that are tried, in lower case."""


def audio_files(folder: Path) -> list[Path]:
    """List the files with an audio suffix in a folder and all below it, sorted.

    Hidden files and folders are left out.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


# WAV, RF64, W64, FLAC, Ogg, MP3 with tags, AIFF, AU, CAF. libsndfile tries two dozen more, some
# of which take almost anything for audio, and some print to standard output.
_SOUND_FILES = (
    *(b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"ID3"),
    *(b"FORM", b".snd", b"dns.", b"caff"),
)
_TS_PACKET_BYTES = 188
_HEAD_BYTES = _TS_PACKET_BYTES + 1
_ID3_HEADER_BYTES = 10


@dataclass(frozen=True, slots=True)
class Container:
    """A kind of file.

    Attributes:
        name: for people; empty where libsndfile shall tell.
        demuxer: the one of FFmpeg's that reads it; empty for what libsndfile reads.
        promises: whether its header says how long the recording is.
    """

    name: str = ""
    demuxer: str = ""
    promises: bool = False


SOUND_FILE = Container()
MP4 = Container("MP4", "mov", promises=True)
WEBM = Container("WEBM", "matroska", promises=True)
MATROSKA = Container("MATROSKA", "matroska", promises=True)
ASF = Container("ASF", "asf", promises=True)
AMR = Container("AMR", "amr")
AAC = Container("AAC", "aac")
AVI = Container("AVI", "avi", promises=True)
FLV = Container("FLV", "flv", promises=True)
MPEG_TS = Container("MPEG-TS", "mpegts")
MPEG_PS = Container("MPEG-PS", "mpeg")

_MEDIA = {
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c": ASF,
    b"#!AMR\n": AMR,
    b"#!AMR-WB\n": AMR,
    b"FLV\x01": FLV,
    b"\x00\x00\x01\xba": MPEG_PS,
}
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def container_of(file: BinaryIO) -> Container | None:
    """Tell the kind of a file; it is left at its start.

    Args:
        file: seekable.

    Returns:
        The kind, or None for what is not audio that we read.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES) or b""
    found = _media(head)
    if found is None and head.startswith(b"ID3") and _is_adts(_behind_tag(file, head)):
        found = AAC
    if found is None and (head.startswith(_SOUND_FILES) or _is_mpeg_audio(head)):
        found = SOUND_FILE
    file.seek(0)
    return found


def _media(head: bytes) -> Container | None:
    for start, container in _MEDIA.items():
        if head.startswith(start):
            return container
    if head[4:8] in _MP4_BOXES:
        return MP4
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"webm" in head[:64] else MATROSKA
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return AVI
    if head[:1] == b"G" and head[_TS_PACKET_BYTES:_HEAD_BYTES] == b"G":
        return MPEG_TS
    return AAC if _is_adts(head) else None


def _is_mpeg_audio(head: bytes) -> bool:
    return len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _is_adts(head: bytes) -> bool:
    """The sync word of MPEG audio, with the layer that only AAC has: none."""
    return len(head) >= 4 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _behind_tag(file: BinaryIO, head: bytes) -> bytes:
    """What follows an ID3v2 tag, whose size has seven bits a byte."""
    size = 0
    for byte in head[6:_ID3_HEADER_BYTES]:
        size = size << 7 | byte & 0x7F
    file.seek(_ID3_HEADER_BYTES + size, io.SEEK_SET)
    return file.read(4) or b""
