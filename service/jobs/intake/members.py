"""The members of an archive, by its kind; links, devices and names that lead out are refused."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, cast

from service.jobs.intake.budget import Budget, IntakeLimits, Metered
from service.jobs.intake.errors import ArchiveError

_HEADER_BYTES = 1 << 20
"""Of one member of a tar."""
_ENTRY_BYTES = 320
"""Of one member in a zip's table of contents, on average; it is read at once, and grows tenfold."""
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Those with little memory: the others take as much as the archive asks for."""
_KINDS = "a zip, tar, tar.gz or tar.zst archive is wanted"


@dataclass(frozen=True, slots=True)
class Member:
    """One member; ``data`` can be read until the next is asked for."""

    name: str
    is_file: bool
    data: IO[bytes] | None


def members(file: BinaryIO, budget: Budget, limits: IntakeLimits) -> Iterator[Member]:
    """Yield what an archive holds, told by its first bytes.

    Args:
        file: the archive.
        budget: is charged for what a tar holds; of a zip's members, whoever reads them charges it.
        limits: bound the table of contents of a zip.

    Raises:
        ArchiveError: if it is none, or a member is not for us.
    """
    head = file.read(512)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _of_zip(file, limits)
    elif head[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as stream:
            yield from _of_tar(cast(BinaryIO, stream), budget)
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            file, read_across_frames=True
        )
        yield from _of_tar(cast(BinaryIO, reader), budget)
    elif head[257:262] == b"ustar":
        yield from _of_tar(file, budget)
    else:
        raise ArchiveError(f"This is no archive that we read; {_KINDS}.")


class _ShortReads(io.RawIOBase):
    """A file of which no large piece is read at once: zipfile reads a table of contents so."""

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        self._file = file
        self._most_bytes = most_bytes

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError) as error:
            if whence == io.SEEK_END:  # zipfile looks there for what may be missing
                raise
            raise ArchiveError("The archive is damaged: it points outside of itself.") from error

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            here = self._file.tell()
            size = max(0, self._file.seek(0, io.SEEK_END) - here)
            self._file.seek(here)
        if size > self._most_bytes:
            raise ArchiveError(
                f"The archive's table of contents has {size} bytes; at most {self._most_bytes} are "
                "read: cut it into parts."
            )
        return self._file.read(size)


def _of_zip(file: BinaryIO, limits: IntakeLimits) -> Iterator[Member]:
    short = _ShortReads(file, max(1 << 21, _ENTRY_BYTES * limits.max_members))
    with zipfile.ZipFile(cast(IO[bytes], short)) as archive:
        for info in archive.infolist():
            kind = info.external_attr >> 28
            if kind == 0xA:
                raise _refused(info.filename, "is a link")
            if kind not in (0, 0x4, 0x8):
                raise _refused(info.filename, "is a device")
            _check_name(info.filename)
            if info.is_dir():
                yield Member(info.filename, False, None)
                continue
            if info.flag_bits & 1:
                raise ArchiveError("The archive is encrypted; send it without a password.")
            if info.compress_type not in _ZIP_METHODS:
                raise _refused(info.filename, "is packed by a method that we do not read (deflate)")
            with archive.open(info) as data:
                yield Member(info.filename, True, data)


def _of_tar(stream: BinaryIO, budget: Budget) -> Iterator[Member]:
    metered = Metered(stream, budget, _HEADER_BYTES)
    with tarfile.open(fileobj=cast(BinaryIO, metered), mode="r|") as archive:
        for info in archive:
            # It would keep all that it has seen.
            archive.members = []  # type: ignore[attr-defined]
            if info.issym() or info.islnk():
                raise _refused(info.name, "is a link")
            if not (info.isfile() or info.isdir()):
                raise _refused(info.name, "is a device")
            if info.issparse():  # it may say any size
                raise _refused(info.name, "is sparse, as no recording is")
            _check_name(info.name)
            metered.expect(info.size)
            data = archive.extractfile(info) if info.isfile() else None
            yield Member(info.name, info.isfile(), data)


def _check_name(name: str) -> None:
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or name[:1] in "/\\":
        raise _refused(name, "has an absolute name")
    if ".." in posix.parts or ".." in windows.parts:
        raise _refused(name, "leads out of the archive")


def _refused(name: str, what: str) -> ArchiveError:
    shown = name.encode("ascii", "backslashreplace").decode()[:80]
    return ArchiveError(f"The archive's member {shown!r} {what}; nothing of it is unpacked.")
