"""The audio formats that are read: how to recognise each, and what reads it.

How to add a format: add a row to :data:`FORMATS`. If FFmpeg reads it and its codec is not yet
allowed, add the codec to ``_DECODERS`` in ffmpeg.py. Add a clip of it to the ``FORMATS`` of
tests/service/inference/test_decode.py (read by libsndfile) or test_ffmpeg.py (read by FFmpeg).
What libsndfile does not read of its formats goes to FFmpeg, if that is installed.
The files picked from folders and archives, and the error for other files, follow from the table.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import BinaryIO

from ..errors import printable
from .joined import first_frame

_TS_PACKET_BYTES = 188
_HEAD_BYTES = _TS_PACKET_BYTES + 1
_ID3_HEADER_BYTES = 10
_MAX_TAGS = 64


_PCM = ("PCM", "floats", "A-law", "mu-law")


@dataclass(frozen=True, slots=True)
class Format:
    """A row of :data:`FORMATS`.

    Attributes:
        name: as users read it. In answers libsndfile names its formats itself.
        suffixes: of files that are picked from folders and archives, in lower case.
        matches: whether a file has this format, from its first bytes and from its first bytes
            behind ID3v2 tags.
        demuxer: FFmpeg's for this format.
        codecs: read by every installation; empty if the format needs the extra ``media``.
        media_codecs: read with the extra ``media`` alone.
        states_duration: whether the header that FFmpeg reads states the duration.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[bytes, bytes], bool]
    demuxer: str
    codecs: tuple[str, ...] = ()
    media_codecs: tuple[str, ...] = ()
    states_duration: bool = False

    @property
    def needs_media(self) -> bool:
        """Whether nothing of this format can be read without the extra ``media``."""
        return not self.codecs


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


_VIDEO_SOUND = ("AAC", "MP3", "MP2", "AC-3", "PCM")

# The first row that matches counts: AVI comes before WAV, and AAC before MP3.
FORMATS = (
    Format(
        "WEBM",
        (".weba", ".webm"),
        _is_webm,
        "matroska",
        media_codecs=("Opus", "Vorbis"),
        states_duration=True,
    ),
    Format(
        "MATROSKA",
        (".mka", ".mkv"),
        _is_matroska,
        "matroska",
        media_codecs=("Opus", "Vorbis", "FLAC", *_VIDEO_SOUND),
        states_duration=True,
    ),
    Format(
        "MP4",
        (".3g2", ".3gp", ".3gpp", ".m4a", ".m4b", ".m4v", ".mov", ".mp4"),
        _is_mp4,
        "mov",
        media_codecs=("AAC", "ALAC", "AMR", "MP3", "AC-3", "FLAC", "Opus", "PCM"),
        states_duration=True,
    ),
    Format(
        "ASF",
        (".asf", ".wma", ".wmv"),
        _starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
        "asf",
        media_codecs=("WMA",),
        states_duration=True,
    ),
    Format(
        "AMR", (".amr", ".awb"), _starts(b"#!AMR\n", b"#!AMR-WB\n"), "amr", media_codecs=("AMR",)
    ),
    Format("AAC", (".aac",), _is_aac, "aac", media_codecs=("AAC",)),
    Format("AVI", (".avi",), _is_avi, "avi", media_codecs=_VIDEO_SOUND, states_duration=True),
    Format(
        "FLV",
        (".flv",),
        _starts(b"FLV\x01"),
        "flv",
        media_codecs=("AAC", "MP3"),
        states_duration=True,
    ),
    Format(
        "MPEG-PS",
        (".mpeg", ".mpg"),
        _starts(b"\x00\x00\x01\xba"),
        "mpeg",
        media_codecs=("MP2", "MP3", "AC-3"),
    ),
    # not .ts, which is TypeScript more often than it is television
    Format("MPEG-TS", (), _is_mpeg_ts, "mpegts", media_codecs=("AAC", "MP2", "MP3", "AC-3")),
    # libsndfile tries two dozen more formats than these, some of which take almost any file for
    # audio, and some of which print to standard output.
    Format(
        "WAV",
        (".rf64", ".wav", ".wave"),
        _starts(b"RIFF", b"RIFX", b"RF64", b"BW64"),
        "wav",
        (*_PCM, "IMA ADPCM", "MS ADPCM", "GSM 6.10", "MP3", "MP2"),
        ("G.722", "G.726", "AC-3", "WMA", "Yamaha ADPCM"),
    ),
    Format("W64", (".w64",), _starts(b"riff"), "w64", (*_PCM, "IMA ADPCM", "MS ADPCM", "GSM 6.10")),
    Format("FLAC", (".flac",), _starts(b"fLaC"), "flac", ("FLAC",)),
    Format("MP3", (".mp3", ".mpga"), _is_mp3, "mp3", ("MP3",)),
    Format(
        "Ogg (Opus or Vorbis)",
        (".oga", ".ogg", ".opus", ".spx"),
        _starts(b"OggS"),
        "ogg",
        ("Opus", "Vorbis"),
        ("FLAC", "Speex"),
    ),
    Format(
        "AIFF",
        (".aif", ".aifc", ".aiff"),
        _starts(b"FORM"),
        "aiff",
        (*_PCM, "IMA ADPCM", "GSM 6.10"),
    ),
    Format("AU", (".au", ".snd"), _starts(b".snd", b"dns."), "au", _PCM),
    Format("CAF", (".caf",), _starts(b"caff"), "caf", (*_PCM, "ALAC"), ("AAC", "Opus", "AC-3")),
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
    row = next((row for row in FORMATS if row.matches(head, body)), None)
    if row is None and first_frame(file) is not None:
        return next(row for row in FORMATS if row.name == "MP3")
    return row


def without_header(file: BinaryIO) -> str | None:
    """Name a file that begins in the middle of a recording, as later pieces of one that is sent do.

    Args:
        file: seekable; its position is moved.

    Returns:
        A sentence for the user; None if it is nothing of the kind.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES) or b""
    found = next((name for name, start in _MIDDLES.items() if start(head)), None)
    if found is None:
        return None
    return (
        f"This is a piece of {found} without its header, which only the first piece has; join "
        "all pieces of the recording and send them as one file."
    )


# A browser's MediaRecorder gives pieces; those after the first begin with a cluster or a fragment.
_MIDDLES: dict[str, Callable[[bytes], bool]] = {
    "WebM": lambda head: head.startswith((b"\x1f\x43\xb6\x75", b"\xa3")) and _is_block(head),
    "MP4": lambda head: head[4:8] in (b"moof", b"styp", b"sidx"),
}


def _is_block(head: bytes) -> bool:
    """Whether a Matroska cluster or block starts here: its size, and what comes first in it."""
    start = 4 if head[0] == 0x1F else 1
    if len(head) < 32 or head[start] == 0:
        return False
    length = 9 - head[start].bit_length()
    first = head[start + length]
    return first in (0xE7, 0xA3, 0xA0, 0xAB, 0xEC) if start == 4 else first & 0x80 != 0


def supported_formats() -> str:
    """List the formats for an error message."""
    sound = [row.name for row in FORMATS if not row.needs_media]
    media = [row.name for row in FORMATS if row.needs_media]
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


PassedOver = dict[str, list[str]]
"""Printable names of files that are no recordings, by reason: hidden, system_folder (of NAS devices
and operating systems), not_a_file (a pipe, a broken link) or not_audio."""

_SYSTEM_FOLDERS = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@tmp", "__macosx", "lost+found",
        "system volume information",
    }
)  # fmt: skip
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}", re.ASCII | re.IGNORECASE)


def why_not_a_recording(path: PurePath, content: Callable[[], BinaryIO]) -> str | None:
    """Decide whether a file of a folder or an archive is a recording: by its suffix.

    A name without suffix, or with an ending that is none (``call 2024.01.15 Berlin``), is decided
    by the file's first bytes.

    Args:
        path: relative to the folder.
        content: opens the file; its first bytes are read.

    Returns:
        The reason to pass it over; None for a recording.

    Raises:
        OSError: if it has no suffix and cannot be read.

    Examples:
        >>> import io
        >>> why_not_a_recording(PurePath("a/B.WAV"), lambda: io.BytesIO()) is None
        True
        >>> why_not_a_recording(PurePath("#recycle/b.wav"), lambda: io.BytesIO())
        'system_folder'
        >>> why_not_a_recording(PurePath("call"), lambda: io.BytesIO(b"text"))
        'not_audio'
    """
    if any(part.casefold() in _SYSTEM_FOLDERS for part in path.parts[:-1]):
        return "system_folder"
    if any(part.startswith(".") for part in path.parts):
        return "hidden"
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return None
    if _SUFFIX.fullmatch(path.suffix) and not path.suffix[1:].isdecimal():
        return "not_audio"
    with content() as file:
        return None if format_of(file) is not None else "not_audio"


@dataclass(frozen=True, slots=True)
class FolderContent:
    """The files of a folder.

    Attributes:
        recordings: sorted paths.
        passed_over: all other files, relative to the folder.
    """

    recordings: list[Path]
    passed_over: PassedOver


def audio_files(folder: Path) -> FolderContent:
    """List the recordings in a folder and all folders below it, and what is passed over.

    Args:
        folder: hidden files, and the system's folders, are passed over; links to folders are not
            followed.
    """
    recordings: list[Path] = []
    passed_over: PassedOver = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_dir():
            continue
        reason: str | None
        try:
            reason = "not_a_file"
            if path.is_file():
                reason = why_not_a_recording(below, partial(_open, path))
        except OSError:
            reason = "not_audio"
        if reason is None:
            recordings.append(path)
        else:
            passed_over.setdefault(reason, []).append(printable(below.as_posix()))
    return FolderContent(recordings, passed_over)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


_EXAMPLES = 3


def describe_passed_over(passed_over: PassedOver) -> str:
    """Count what is passed over, and name some of it.

    Examples:
        >>> describe_passed_over({"not_audio": ["a.txt", "b.csv", "c.txt", "d"], "hidden": [".e"]})
        '4 not_audio (a.txt, b.csv, c.txt, …); 1 hidden (.e)'
    """
    return "; ".join(
        f"{len(names)} {reason} ({', '.join(names[:_EXAMPLES])}{', …' * (len(names) > _EXAMPLES)})"
        for reason, names in passed_over.items()
    )
