"""A file as libsndfile may use it: bounded, past its tags, and never a reason to print."""

import contextlib
import io
import struct
from typing import BinaryIO

from service.inference.allowance import Allowance

_UNTIL_THE_END = b"\xff\xff\xff\xff"
_MAX_CHUNKS = 64
_MAX_TAGS = 64


class Source(io.RawIOBase):
    """A read-only view of a seekable binary file.

    libsndfile calls it back from C, where an exception cannot be raised but only printed: a seek
    to before the start, which a damaged header may ask for, leaves the position as it is, and
    where the allowance is spent the file ends.

    A recorder that writes a WAV to a pipe cannot go back to fill the sizes in. libsndfile knows
    the placeholder 0xFFFFFFFF; this view gives the other one in use, 0, that meaning too.

    The view begins behind ID3v2 tags. libmpg123 would hold all of a tag in memory, twice.

    Args:
        file: stays the caller's.
        allowance: is charged for what is read.
    """

    def __init__(self, file: BinaryIO, allowance: Allowance) -> None:
        self._file = file
        self._allowance = allowance
        self._end = _size(file)
        self._start = _end_of_tags(file)
        self._patch_at = _size_of_unsized_data(file, self._start)
        file.seek(self._start)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move where possible; return the position."""
        origins = {io.SEEK_SET: self._start, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._end}
        target = origins[whence] + offset
        if target >= self._start:
            with contextlib.suppress(OSError, OverflowError):
                self._file.seek(target)
        return self.tell()

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell() - self._start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes; return how many."""
        if not self._allowance.read(len(buffer)):
            return 0
        start = self._file.tell()
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if self._patch_at is not None:
            for position, byte in enumerate(_UNTIL_THE_END, start=self._patch_at - start):
                if 0 <= position < len(data):
                    buffer[position : position + 1] = bytes([byte])
        return len(data)


def _size(file: BinaryIO) -> int:
    file.seek(0, io.SEEK_END)
    return file.tell()


def _end_of_tags(file: BinaryIO) -> int:
    """Find where what follows the ID3v2 tags at the start of a file begins."""
    position = 0
    for _ in range(_MAX_TAGS):
        file.seek(position)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:]) > 0x7F:
            break
        footer = 10 if head[5] & 0x10 else 0
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        position += 10 + size + footer
    return position


def _size_of_unsized_data(file: BinaryIO, start: int) -> int | None:
    """Find the size field of a data chunk of size 0 in a RIFF whose own size is wrong too."""
    file_size = _size(file)
    file.seek(start)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    (riff_size,) = struct.unpack("<I", head[4:8])
    position = start + 12
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            unsized = size == 0 and start + riff_size + 8 != file_size and position + 8 < file_size
            return position + 4 if unsized else None
        position += 8 + size + size % 2
    return None
