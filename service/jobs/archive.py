"""A file of which no large piece is read at once.

Unpacking archives that strangers made: zip, tar, tar.gz, tar.zst.
"""

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
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, BinaryIO, cast

from ..inference.audio.formats import AUDIO_SUFFIXES
from .errors import ArchiveError
from .names import Places, safe_path


class ShortReads(io.RawIOBase):
    """What zipfile may see of a zip.

    zipfile reads the table of contents at once, and it grows tenfold in memory. How long it is, is
    told in up to three places, and which of them counts, zipfile decides: what is bounded is the
    reading itself.

    Args:
        file: the archive.
        most_bytes: of one piece.
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
        """Move.

        Raises:
            ArchiveError: if a header points to where nothing can be.
            OSError: if there is less than is looked for at the end, which zipfile understands.
        """
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError) as error:
            if whence == io.SEEK_END:
                raise
            raise ArchiveError("The archive is damaged: it points outside of itself.") from error

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or to the end.

        Raises:
            ArchiveError: if that is too much at once.
        """
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


_CHUNK_BYTES = 1 << 20
_FREE_BYTES = 16 << 20
"""Unpacked bytes up to which no ratio is too high: silence packs very well."""
_DIRECTORY_BYTES = 1 << 21
"""Table of contents of a zip that is read in any case; more than a chunk, for members are read so
too."""
_ENTRY_BYTES = 320
"""Of a member in it, on average."""
_HEADER_BYTES = 1 << 20
"""Longest description of a member of a tar, long names included; it is read at once."""
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
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
    data: "_Metered | IO[bytes] | None"


def unpack(
    archive: Path, into: Path, limits: IntakeLimits, go_on: Callable[[], None] = lambda: None
) -> int:
    """Write the audio files of an archive into a new folder; everything else is passed over.

    Args:
        archive: zip, tar, tar.gz or tar.zst, told by its first bytes.
        into: must not be there yet; after an error it is left behind, for whoever called to remove.
        limits: counted while reading: what headers say is not believed.
        go_on: called for each member and each piece of one; what it raises ends the work.

    Returns:
        How many files were written.

    Raises:
        ArchiveError: if it is none of these, damaged, encrypted, too large, or holds links,
            devices, or names that lead out of it.
        OSError: if the folder cannot be written.
    """
    into.mkdir(parents=True)
    places = Places(into)
    written = 0
    with archive.open("rb") as file:
        budget = _Budget(archive.stat().st_size, limits, go_on)
        members = _members(file, budget, limits)
        for number in itertools.count(1):
            with _reading():
                member = next(members, None)
            go_on()
            if member is None:
                break
            if number > limits.max_members:
                raise ArchiveError(
                    f"The archive holds more than {limits.max_members} members; cut it into parts."
                )
            path = safe_path(member.name)
            if not member.is_file or member.data is None or not path:
                continue
            if path.suffix.lower() not in AUDIO_SUFFIXES:
                continue
            _write(member, _place(places, path, member))
            written += 1
    if not written:
        raise ArchiveError(
            f"The archive holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}."
        )
    return written


def _place(places: Places, path: PurePosixPath, member: _Member) -> Path:
    place = places.free(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _refused(member.name, "lies in a folder that is a file as well") from None
    return place


def _write(member: _Member, place: Path) -> None:
    assert member.data is not None
    with place.open("xb") as out:
        while True:
            with _reading():
                chunk = member.data.read(_CHUNK_BYTES)
            if not chunk:
                return
            out.write(chunk)


class _Budget:
    def __init__(self, packed_bytes: int, limits: IntakeLimits, go_on: Callable[[], None]) -> None:
        self._packed = max(1, packed_bytes)
        self._limits = limits
        self._go_on = go_on
        self._spent = 0

    def spend(self, num_bytes: int) -> None:
        self._go_on()
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


class _Metered:
    """Unpacked bytes on their way out of an archive; each is paid for, also if nobody wants it.

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
                    f"The archive describes a member in more than {_HEADER_BYTES} bytes, as nobody "
                    "needs."
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
        raise ArchiveError("The archive is damaged, or packed in a way that we lack.") from error
    except OSError as error:
        if error.errno is None:  # of gzip: not the disk
            raise ArchiveError("The archive is damaged.") from error
        raise


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
        raise ArchiveError(f"This is no archive that we read; {_KINDS}.")


def _of_zip(file: BinaryIO, budget: _Budget, limits: IntakeLimits) -> Iterator[_Member]:
    short = ShortReads(file, max(_DIRECTORY_BYTES, _ENTRY_BYTES * limits.max_members))
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
                raise ArchiveError("The archive is packed in a way that we lack; deflate is read.")
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
                pass  # what nobody wanted: or the next description would seem as long
            stream.room = _HEADER_BYTES
        stream.room = None
        while stream.read(_CHUNK_BYTES):
            pass  # to the sum at its end


def _check_name(name: str) -> None:
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or name[:1] in "/\\":
        raise _refused(name, "has an absolute name")
    if ".." in posix.parts or ".." in windows.parts:
        raise _refused(name, "leads out of the archive")


def _refused(name: str, what: str) -> ArchiveError:
    shown = name.encode("ascii", "backslashreplace").decode()[:80]
    return ArchiveError(f"The archive's member {shown!r} {what}; nothing of it is unpacked.")
