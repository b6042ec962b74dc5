"""WAV files whose writer could not go back to fill the sizes in (recorders writing to a pipe)."""

import io
import struct
from typing import BinaryIO, cast

_UNTIL_THE_END = b"\xff\xff\xff\xff"
_MAX_CHUNKS = 64


def repaired(file: BinaryIO) -> BinaryIO:
    """Give a WAV that claims to have no samples, yet goes on, its samples back.

    Args:
        file: any seekable binary file; it is not changed.

    Returns:
        The file itself, or a view of it whose data chunk lasts until the end of the file.
        (libsndfile handles the other placeholder, 0xFFFFFFFF, itself.)
    """
    position = _unsized_data(file)
    file.seek(0)
    if position is None:
        return file
    return cast(BinaryIO, _Overlay(file, position, _UNTIL_THE_END))


def _unsized_data(file: BinaryIO) -> int | None:
    """Find the size field of a data chunk of size 0 in a RIFF whose own size is wrong."""
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


class _Overlay(io.RawIOBase):
    """A read-only view of a file in which a few bytes are replaced."""

    def __init__(self, file: BinaryIO, position: int, patch: bytes) -> None:
        self._file, self._position, self._patch = file, position, patch

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        start = self._file.tell()
        data = bytearray(self._file.read(len(buffer)))
        for i, byte in enumerate(self._patch, start=self._position - start):
            if 0 <= i < len(data):
                data[i] = byte
        buffer[: len(data)] = data
        return len(data)
