"""Unpacking archives that strangers made: zip, tar, tar.gz, tar.zst."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, cast

from service.inference.files import AUDIO_SUFFIXES
from service.jobs.intake.errors import ArchiveError
from service.jobs.intake.names import free_place, safe_path

_CHUNK_BYTES = 1 << 20
_FREE_BYTES = 16 << 20
"""Unpacked bytes up to which no ratio is too high: silence packs very well."""
_DIRECTORY_BYTES = 64 << 20
"""Largest table of contents of a zip; it is read at once."""
_KINDS = "a zip, tar, tar.gz or tar.zst archive is wanted"


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """What an archive may hold.

    Attributes:
        max_members: of all kinds.
        max_unpacked_bytes: of all that is written.
        max_ratio: of unpacked bytes to the archive's.
    """

    max_members: int
    max_unpacked_bytes: int
    max_ratio: int


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    is_file: bool
    data: IO[bytes] | None


def unpack(archive: Path, into: Path, limits: IntakeLimits) -> int:
    """Write the audio files of an archive into a new folder; everything else is passed over.

    Archives within the archive are not opened. Names are made safe, and keep what can be kept.

    Args:
        archive: zip, tar, tar.gz or tar.zst, told by its first bytes.
        into: is made; on an error it is left behind, for whoever called to remove.
        limits: counted while writing: what headers say is not believed.

    Returns:
        How many files were written.

    Raises:
        ArchiveError: if it is none of these, damaged, encrypted, too large, or holds links,
            devices, or names that lead out of it.
        OSError: if the folder cannot be written.
    """
    into.mkdir(parents=True)
    budget = _Budget(archive.stat().st_size, limits)
    written = 0
    with _reading(), archive.open("rb") as file:
        for number, member in enumerate(_members(file), start=1):
            if number > limits.max_members:
                raise ArchiveError(
                    f"The archive holds more than {limits.max_members} members; cut it into parts."
                )
            path = safe_path(member.name)
            if not member.is_file or member.data is None or not path:
                continue
            if path.suffix.lower() not in AUDIO_SUFFIXES:
                continue
            place = free_place(into, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as out:
                while chunk := member.data.read(_CHUNK_BYTES):
                    budget.spend(len(chunk))
                    out.write(chunk)
            written += 1
    if not written:
        raise ArchiveError(
            f"The archive holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}."
        )
    return written


class _Budget:
    def __init__(self, packed_bytes: int, limits: IntakeLimits) -> None:
        self._packed = max(1, packed_bytes)
        self._limits = limits
        self._spent = 0

    def spend(self, num_bytes: int) -> None:
        self._spent += num_bytes
        if self._spent > self._limits.max_unpacked_bytes:
            raise ArchiveError(
                f"The archive unpacks to more than {self._limits.max_unpacked_bytes} bytes; cut it "
                "into parts."
            )
        if self._spent > max(_FREE_BYTES, self._packed * self._limits.max_ratio):
            raise ArchiveError(
                f"The archive's {self._packed} bytes unpack to more than {self._limits.max_ratio} "
                "times as many, as no recordings do."
            )


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever the libraries say of a damaged archive becomes one error."""
    import zstandard

    try:
        yield
    except (
        tarfile.TarError, zipfile.BadZipFile, zlib.error, zstandard.ZstdError, EOFError,
        NotImplementedError, RuntimeError, ValueError, LookupError, struct.error, OverflowError,
    ) as error:  # fmt: skip
        raise ArchiveError("The archive is damaged, or packed in a way that we lack.") from error
    except OSError as error:
        if error.errno is None:  # of gzip: not the disk
            raise ArchiveError("The archive is damaged.") from error
        raise


def _members(file: BinaryIO) -> Iterator[_Member]:
    head = file.read(512)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _of_zip(file)
    elif head[:2] == b"\x1f\x8b":
        yield from _of_tar(file, "r|gz")
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            file, read_across_frames=True
        )
        yield from _of_tar(cast(BinaryIO, reader), "r|")
    elif head[257:262] == b"ustar":
        yield from _of_tar(file, "r|")
    else:
        raise ArchiveError(f"This is no archive that we read; {_KINDS}.")


def _of_zip(file: BinaryIO) -> Iterator[_Member]:
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = info.external_attr >> 28
            if kind == 0xA:
                raise _refused(info.filename, "is a link")
            if kind not in (0, 0x4, 0x8):
                raise _refused(info.filename, "is a device")
            _check_name(info.filename)
            if info.is_dir():
                yield _Member(info.filename, False, None)
                continue
            if info.flag_bits & 1:
                raise ArchiveError("The archive is encrypted; send it without a password.")
            with archive.open(info) as data:
                yield _Member(info.filename, True, data)


def _check_directory(file: BinaryIO) -> None:
    """Refuse a table of contents that would fill the memory before a member is counted."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 66_000))
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 16:
        raise ArchiveError("The archive is damaged: it breaks off.")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    if length == 0xFFFFFFFF and (large := tail.rfind(b"PK\x06\x06", 0, at)) >= 0:
        (length,) = struct.unpack_from("<Q", tail, large + 40)
    if length > _DIRECTORY_BYTES:
        raise ArchiveError(
            f"The archive's table of contents has {length} bytes; at most {_DIRECTORY_BYTES} are "
            "read: cut it into parts."
        )


def _of_tar(file: BinaryIO, mode: str) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for info in archive:
            archive.members = []  # it would keep all that it has seen
            if info.issym() or info.islnk():
                raise _refused(info.name, "is a link")
            if not (info.isfile() or info.isdir()):
                raise _refused(info.name, "is a device")
            _check_name(info.name)
            data = archive.extractfile(info) if info.isfile() else None
            yield _Member(info.name, info.isfile(), data)


def _check_name(name: str) -> None:
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or name[:1] in "/\\":
        raise _refused(name, "has an absolute name")
    if ".." in posix.parts or ".." in windows.parts:
        raise _refused(name, "leads out of the archive")


def _refused(name: str, what: str) -> ArchiveError:
    shown = name.encode("ascii", "backslashreplace").decode()[:80]
    return ArchiveError(f"The archive's member {shown!r} {what}; nothing of it is unpacked.")
