"""A file as libsndfile may use it: hostile offsets do not raise, and unfinished WAVs are read."""

import contextlib
import io
import struct
from typing import BinaryIO

_UNTIL_THE_END = b"\xff\xff\xff\xff"
_MAX_CHUNKS = 64


class Source(io.RawIOBase):
    """A read-only view of a seekable binary file.

    libsndfile calls it back from C, where an exception cannot be raised but only printed: a seek
    to before the start, which a damaged header may ask for, leaves the position as it is.

    A recorder that writes a WAV to a pipe cannot go back to fill the sizes in. libsndfile knows
    the placeholder 0xFFFFFFFF; this view gives the other one in use, 0, that meaning too.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._patch_at = _size_of_unsized_data(file)
        file.seek(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move where possible; return the position."""
        with contextlib.suppress(ValueError, OSError):
            self._file.seek(offset, whence)
        return self._file.tell()

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes; return how many."""
        start = self._file.tell()
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if self._patch_at is not None:
            for position, byte in enumerate(_UNTIL_THE_END, start=self._patch_at - start):
                if 0 <= position < len(data):
                    buffer[position : position + 1] = bytes([byte])
        return len(data)


def _size_of_unsized_data(file: BinaryIO) -> int | None:
    """Find the size field of a data chunk of size 0 in a RIFF whose own size is wrong too."""
    file.seek(0, io.SEEK_END)
    file_size = file.tell()
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    (riff_size,) = struct.unpack("<I", head[4:8])
    position = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            unsized = size == 0 and riff_size + 8 != file_size and position + 8 < file_size
            return position + 4 if unsized else None
        position += 8 + size + size % 2
    return None
