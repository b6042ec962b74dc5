"""Unpack archives from clients who may be hostile; every size, count and name is checked."""

import gzip
import io
import itertools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, BinaryIO, cast

from ..files import FreePaths, safe_path
from ..inference.audio.formats import (
    AUDIO_SUFFIXES,
    PassedOver,
    describe_passed_over,
    why_not_a_recording,
)
from ..inference.errors import printable
from .errors import ArchiveError, ArchiveTooLargeError


class ShortReads(io.RawIOBase):
    """A file that refuses to read a large piece at once; zipfile reads through it.

    zipfile reads the whole table of contents at once, and it grows tenfold in memory. Its length
    stands in up to three places of the archive, and zipfile decides which one counts: so the
    limit is on the reading itself.

    Args:
        file: the archive.
        most_bytes: largest piece.
    """

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        self._file = file
        self._most_bytes = most_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position.

        Raises:
            ArchiveError: if a header points outside of the file.
            OSError: if the file is shorter than a seek from its end; zipfile handles this.
        """
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError) as error:
            if whence == io.SEEK_END:
                raise
            raise ArchiveError("The archive is damaged: it points outside of itself.") from error

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, or to the end.

        Raises:
            ArchiveError: if that is more than ``most_bytes``.
        """
        if size is None or size < 0:
            here = self._file.tell()
            size = max(0, self._file.seek(0, io.SEEK_END) - here)
            self._file.seek(here)
        if size > self._most_bytes:
            raise ArchiveError(
                f"The archive's table of contents is {size} bytes; at most {self._most_bytes} are "
                "accepted. Split the archive."
            )
        return self._file.read(size)


class _MendedNames(ShortReads):
    """A zip whose flags say which names are UTF-8: some programs set them wrongly, some not at all.

    zipfile refuses the ones and misreads the others.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and correct the flags if it is the table of contents or a member's header."""
        data = super().read(size)
        if data.startswith(_ENTRY):
            return _mended(data)
        if data.startswith(_MEMBER) and len(data) == _MEMBER_HEAD_BYTES:
            name = self._file.read(*struct.unpack_from("<H", data, 26))
            self._file.seek(-len(name), io.SEEK_CUR)
            return data[:6] + _flags(data, 6, name) + data[8:]
        return data


_MEMBER, _MEMBER_HEAD_BYTES = b"PK\x03\x04", 30
_ENTRY, _ENTRY_HEAD_BYTES = b"PK\x01\x02", 46
_UTF8 = 0x800


def _mended(table: bytes) -> bytes:
    mended, position = bytearray(table), 0
    while (start := position + _ENTRY_HEAD_BYTES) <= len(table):
        sizes = struct.unpack_from("<3H", table, position + 28)
        name = table[start : start + sizes[0]]
        mended[position + 8 : position + 10] = _flags(table, position + 8, name)
        position = start + sum(sizes)
    return bytes(mended)


def _flags(header: bytes, offset: int, name: bytes) -> bytes:
    (flags,) = struct.unpack_from("<H", header, offset)
    try:
        name.decode()
    except UnicodeDecodeError:
        return struct.pack("<H", flags & ~_UTF8)
    return struct.pack("<H", flags | _UTF8)


_CHUNK_BYTES = 1 << 20
_FREE_BYTES = 16 << 20
"""Unpacked bytes up to which any ratio is accepted: silence packs very well."""
_DIRECTORY_BYTES = 1 << 21
"""A zip's table of contents may be this large for any number of members; more than a chunk, since
members are read through the same limit."""
_ENTRY_BYTES = 320
"""Bytes per member in the table of contents, on average."""
_HEADER_BYTES = 1 << 20
"""Largest header of a member of a tar, including long names; it is read at once."""
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_KINDS = "a zip, tar, tar.gz or tar.zst file"


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Limits for an archive.

    Attributes:
        max_members: most members, of any kind.
        max_unpacked_bytes: most bytes of all members together, unpacked.
        max_ratio: most unpacked bytes for each byte of the archive.
        manifest: name of a file that is written although it is no recording; empty for none.
    """

    max_members: int
    max_unpacked_bytes: int
    max_ratio: int
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    is_file: bool
    data: "_Metered | IO[bytes] | None"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What became of an archive's members: files written, and names of the others, by reason."""

    num_files: int
    passed_over: PassedOver


def unpack(
    archive: Path, into: Path, limits: IntakeLimits, check: Callable[[], None] = lambda: None
) -> Unpacked:
    """Write the audio files of an archive into a new folder; other files are skipped.

    Args:
        archive: zip, tar, tar.gz or tar.zst, recognised by its first bytes.
        into: must not exist yet; after an error the caller has to remove it.
        limits: checked while reading.
        check: called for each member and each piece; an error that it raises ends the work.

    Returns:
        How many files were written, and what was not.

    Raises:
        ArchiveError: if it is no such archive, damaged, encrypted or too large, or holds links,
            devices, or names that lead out of ``into``.
        OSError: if the folder cannot be written.
    """
    into.mkdir(parents=True)
    places = FreePaths(into)
    written, passed_over = 0, PassedOver()
    with archive.open("rb") as file:
        budget = _Budget(archive.stat().st_size, limits, check)
        members = _members(file, budget, limits)
        for number in itertools.count(1):
            with _reading():
                member = next(members, None)
            check()
            if member is None:
                break
            if number > limits.max_members:
                raise ArchiveTooLargeError(
                    f"The archive holds more than {limits.max_members} members. Split the archive."
                )
            if not member.is_file or member.data is None:
                continue
            path = safe_path(member.name)
            with _reading():
                head = member.data.read(_CHUNK_BYTES)
            name = PurePosixPath(member.name.replace("\\", "/"))
            reason = why_not_a_recording(path or name, partial(io.BytesIO, head))
            if path is None or (reason is not None and path.name != limits.manifest):
                shown = printable(member.name)[:255]
                passed_over.setdefault(reason or "too_deep", []).append(shown)
                continue
            _write(head, member.data, _place(places, path, member))
            written += reason is None
    if not written:
        raise ArchiveError(
            f"The archive holds no audio file; these are read: {', '.join(sorted(AUDIO_SUFFIXES))}."
            f" It holds: {describe_passed_over(passed_over) or 'nothing'}."
        )
    return Unpacked(written, passed_over)


def _place(places: FreePaths, path: PurePosixPath, member: _Member) -> Path:
    place = places.free(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _refused(member.name, "lies in a folder that is also a file") from None
    return place


def _write(head: bytes, data: "_Metered | IO[bytes]", place: Path) -> None:
    with place.open("xb") as out:
        chunk = head
        while chunk:
            out.write(chunk)
            with _reading():
                chunk = data.read(_CHUNK_BYTES)


class _Budget:
    def __init__(self, packed_bytes: int, limits: IntakeLimits, check: Callable[[], None]) -> None:
        self._packed = max(1, packed_bytes)
        self._limits = limits
        self._check = check
        self._spent = 0

    def spend(self, num_bytes: int) -> None:
        self._check()
        self._spent += num_bytes
        if self._spent > self._limits.max_unpacked_bytes:
            raise ArchiveTooLargeError(
                f"The archive unpacks to more than {self._limits.max_unpacked_bytes} bytes. "
                "Split the archive."
            )
        if self._spent > max(_FREE_BYTES, self._packed * self._limits.max_ratio):
            raise ArchiveError(
                f"The archive's {self._packed} bytes unpack to more than {self._limits.max_ratio} "
                "times as many; recordings do not."
            )


class _Metered:
    """Unpacked bytes on their way out of an archive; all count against the budget.

    Attributes:
        room: bytes that may be read before it is set again; None for no such limit.
    """

    def __init__(self, data: IO[bytes], budget: _Budget) -> None:
        self._data = data
        self._budget = budget
        self.room: int | None = None

    def read(self, size: int) -> bytes:
        piece = self._data.read(size)
        self._budget.spend(len(piece))
        if self.room is not None:
            self.room -= len(piece)
            if self.room < 0:
                raise ArchiveError(
                    f"The header of a member of the archive is too large; at most {_HEADER_BYTES} "
                    "bytes are accepted."
                )
        return piece


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
        raise ArchiveError("The archive is damaged, or packed in an unsupported way.") from error
    except OSError as error:
        if error.errno is None:  # from gzip, not from the disk
            raise ArchiveError("The archive is damaged.") from error
        raise


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its first bytes, or a gzip of anything else."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"\x28\xb5\x2f\xfd")) or (
        head[257:262] == b"ustar"
    )


def _members(file: BinaryIO, budget: _Budget, limits: IntakeLimits) -> Iterator[_Member]:
    head = file.read(512)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _of_zip(file, budget, limits)
    elif head[:2] == b"\x1f\x8b":
        yield from _of_tar(_Metered(cast(IO[bytes], gzip.GzipFile(fileobj=file)), budget))
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            file, read_across_frames=True
        )
        yield from _of_tar(_Metered(cast(IO[bytes], reader), budget))
    elif head[257:262] == b"ustar":
        yield from _of_tar(_Metered(file, budget))
    else:
        raise ArchiveError(f"The upload is not an archive that is supported; send {_KINDS}.")


def _of_zip(file: BinaryIO, budget: _Budget, limits: IntakeLimits) -> Iterator[_Member]:
    short = _MendedNames(file, max(_DIRECTORY_BYTES, _ENTRY_BYTES * limits.max_members))
    with zipfile.ZipFile(cast(IO[bytes], short)) as archive:
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
            if info.compress_type not in _ZIP_METHODS:  # LZMA: as much memory as it asks for
                raise ArchiveError("The archive's compression is not supported; use deflate.")
            with archive.open(info) as data:
                yield _Member(info.filename, True, _Metered(data, budget))


def _of_tar(stream: _Metered) -> Iterator[_Member]:
    stream.room = _HEADER_BYTES
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
        for info in archive:
            cast(Any, archive).members = []  # it would keep all that it has seen
            if info.issym() or info.islnk():
                raise _refused(info.name, "is a link")
            if not (info.isfile() or info.isdir()):
                raise _refused(info.name, "is a device")
            if info.issparse():
                raise _refused(info.name, "is a sparse file")
            _check_name(info.name)
            stream.room = None
            data = archive.extractfile(info) if info.isfile() else None
            yield _Member(info.name, info.isfile(), data)
            while data is not None and data.read(_CHUNK_BYTES):
                pass  # the rest of a skipped file, or it would count as the next header
            stream.room = _HEADER_BYTES
        stream.room = None
        while stream.read(_CHUNK_BYTES):
            pass  # to the end, where the checksum is


def _check_name(name: str) -> None:
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or name[:1] in "/\\":
        raise _refused(name, "has an absolute name")
    if ".." in posix.parts or ".." in windows.parts:
        raise _refused(name, "leads out of the archive")


def _refused(name: str, what: str) -> ArchiveError:
    shown = printable(name[:80])
    return ArchiveError(f"The archive's member '{shown}' {what}; the archive is refused.")
