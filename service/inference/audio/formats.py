"""The audio formats that are read: how to recognise each, and what reads it.

How to add a format: add a row to :data:`FORMATS`. If FFmpeg reads it and its codec is not yet
allowed, add the codec to ``_DECODERS`` in ffmpeg.py. Add a clip of it to the ``FORMATS`` of
tests/service/inference/test_decode.py (read by libsndfile) or test_ffmpeg.py (read by FFmpeg).
The files picked from folders and archives, and the error for other files, follow from the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TS_PACKET_BYTES = 188
_HEAD_BYTES = _TS_PACKET_BYTES + 1
_ID3_HEADER_BYTES = 10
_MAX_TAGS = 64


@dataclass(frozen=True, slots=True)
class Format:
    """A row of :data:`FORMATS`.

    Attributes:
        name: as users read it. In answers libsndfile names its formats itself.
        suffixes: of files that are picked from folders and archives, in lower case.
        matches: whether a file has this format, from its first bytes and from its first bytes
            behind ID3v2 tags.
        demuxer: FFmpeg's for this format; empty if libsndfile reads it.
        states_duration: whether the header that FFmpeg reads states the duration.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[bytes, bytes], bool]
    demuxer: str = ""
    states_duration: bool = False


def _starts(*signatures: bytes) -> Callable[[bytes, bytes], bool]:
    return lambda head, _: head.startswith(signatures)


def _is_mp4(head: bytes, _: bytes) -> bool:
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def _is_matroska(head: bytes, _: bytes) -> bool:
    return head.startswith(b"\x1a\x45\xdf\xa3")


def _is_webm(head: bytes, body: bytes) -> bool:
    return _is_matroska(head, body) and b"webm" in head[:64]


def _is_avi(head: bytes, _: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def _is_mpeg_ts(head: bytes, _: bytes) -> bool:
    return head[:1] == b"G" and head[_TS_PACKET_BYTES:] == b"G"


def _is_aac(_: bytes, body: bytes) -> bool:
    """ADTS: the sync word of MPEG audio with layer 0, which only AAC has."""
    return len(body) >= 4 and body[0] == 0xFF and body[1] & 0xF6 == 0xF0


def _is_mp3(head: bytes, _: bytes) -> bool:
    """Tags, or the sync word of MPEG audio."""
    return head.startswith(b"ID3") or (len(head) >= 4 and head[0] == 0xFF and head[1] >= 0xE0)


# The first row that matches counts: AVI comes before WAV, and AAC before MP3.
FORMATS = (
    Format("WEBM", (".webm",), _is_webm, "matroska", states_duration=True),
    Format("MATROSKA", (".mka", ".mkv"), _is_matroska, "matroska", states_duration=True),
    Format(
        "MP4",
        (".3g2", ".3gp", ".m4a", ".m4b", ".m4v", ".mov", ".mp4"),
        _is_mp4,
        "mov",
        states_duration=True,
    ),
    Format(
        "ASF",
        (".asf", ".wma", ".wmv"),
        _starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
        "asf",
        states_duration=True,
    ),
    Format("AMR", (".amr", ".awb"), _starts(b"#!AMR\n", b"#!AMR-WB\n"), "amr"),
    Format("AAC", (".aac",), _is_aac, "aac"),
    Format("AVI", (".avi",), _is_avi, "avi", states_duration=True),
    Format("FLV", (".flv",), _starts(b"FLV\x01"), "flv", states_duration=True),
    Format("MPEG-PS", (".mpeg", ".mpg"), _starts(b"\x00\x00\x01\xba"), "mpeg"),
    # not .ts, which is TypeScript more often than it is television
    Format("MPEG-TS", (), _is_mpeg_ts, "mpegts"),
    # libsndfile tries two dozen more formats than these, some of which take almost any file for
    # audio, and some of which print to standard output.
    Format("WAV", (".rf64", ".w64", ".wav"), _starts(b"RIFF", b"RIFX", b"RF64", b"riff")),
    Format("FLAC", (".flac",), _starts(b"fLaC")),
    Format("MP3", (".mp3",), _is_mp3),
    Format("Ogg (Opus or Vorbis)", (".oga", ".ogg", ".opus"), _starts(b"OggS")),
    Format("AIFF", (".aif", ".aiff"), _starts(b"FORM")),
    Format("AU", (".au", ".snd"), _starts(b".snd", b"dns.")),
    Format("CAF", (".caf",), _starts(b"caff")),
)

AUDIO_SUFFIXES = frozenset(suffix for row in FORMATS for suffix in row.suffixes)
"""Suffixes of files that are picked from folders and archives, in lower case."""


def format_of(file: BinaryIO) -> Format | None:
    """Recognise the format of a file by its first bytes; its name does not count.

    Args:
        file: seekable; its position is moved.

    Returns:
        The first row that matches, or None.

    Examples:
        >>> import io
        >>> format_of(io.BytesIO(b"fLaC....")).name
        'FLAC'
        >>> format_of(io.BytesIO(b"<html>")) is None
        True
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES) or b""
    body = head
    if head.startswith(b"ID3"):
        file.seek(end_of_tags(file))
        body = file.read(_HEAD_BYTES) or b""
    return next((row for row in FORMATS if row.matches(head, body)), None)


def supported_formats() -> str:
    """List the formats for an error message."""
    sound = [row.name for row in FORMATS if not row.demuxer]
    media = [row.name for row in FORMATS if row.demuxer]
    return (
        f"{', '.join(sound[:-1])} or {sound[-1]}, or with the extra 'media' "
        f"{', '.join(media[:-1])} or {media[-1]}"
    )


def end_of_tags(file: BinaryIO) -> int:
    """Find the end of the ID3v2 tags at the start of a file.

    Args:
        file: seekable; its position is moved.

    Returns:
        A position in bytes; 0 if there are no tags. It may lie behind the end of the file.
    """
    position = 0
    for _ in range(_MAX_TAGS):
        file.seek(position)
        header = file.read(_ID3_HEADER_BYTES) or b""
        # the size has seven bits a byte
        if len(header) < 10 or header[:3] != b"ID3" or max(header[6:]) > 0x7F:
            break
        footer = _ID3_HEADER_BYTES if header[5] & 0x10 else 0
        size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
        position += _ID3_HEADER_BYTES + size + footer
    return position


def audio_files(folder: Path) -> list[Path]:
    """List the files with an audio suffix in a folder and all folders below it.

    Args:
        folder: hidden files and folders in it are left out.

    Returns:
        Sorted paths.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
