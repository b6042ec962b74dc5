"""The form of POST /predict/batch: many recordings in one unnamed file that is gone afterwards."""

import io
import os
import threading
from tempfile import TemporaryFile
from typing import IO, BinaryIO, cast

from service.api.errors import BadFormError
from service.api.multipart import Form

FILES = "files"
"""The parts that hold audio."""

_MAX_NAME = 255
_HOW = "send multipart/form-data with the recordings as parts 'files' (curl -F files=@a.wav -F ...)"


class BatchForm(Form):
    """Takes the form in pieces. However many recordings it holds, it is one open file.

    Args:
        content_type: of the request, with its boundary.
        max_files: recordings at most.

    Raises:
        BadFormError: if there is no boundary, or one that cannot be.
    """

    def __init__(self, content_type: str, max_files: int) -> None:
        super().__init__(content_type)
        self._max_files = max_files
        self._store = TemporaryFile()  # noqa: SIM115 (closed by close)
        self._lock = threading.Lock()
        self._size = 0
        self._bounds: list[tuple[str, int, int]] = []

    def begin(self, name: str, filename: str | None) -> None:
        """Begin a recording."""
        if name != FILES or filename is None:
            kind = "field" if filename is None else "file"
            raise BadFormError(f"The form has a {kind} named {name[:64]!r}; {_HOW}.")
        if len(self._bounds) >= self._max_files:
            raise BadFormError(
                f"More than {self._max_files} files; send them in several requests, or score the "
                "folder with 'nnpm predict'."
            )
        self._bounds.append((filename[:_MAX_NAME], self._size, self._size))

    def data(self, piece: memoryview) -> None:
        """Write the next bytes of a recording."""
        self._store.write(piece)
        self._size += len(piece)

    def end(self) -> None:
        """End a recording."""
        name, start, _ = self._bounds[-1]
        self._bounds[-1] = (name, start, self._size)

    def finish(self) -> None:
        """See that the form is whole.

        Raises:
            BadFormError: if the end is missing, or there is no recording in it.
        """
        super().finish()
        if not self._bounds:
            raise BadFormError(f"There is no file in the form; {_HOW}.")
        self._store.flush()

    def recordings(self) -> list[tuple[str, BinaryIO]]:
        """Name as sent, and content, of each recording; threads may read them side by side."""
        return [
            (name, cast(BinaryIO, _Section(self._store, self._lock, start, end)))
            for name, start, end in self._bounds
        ]

    def close(self) -> None:
        """Drop all of it; whoever still reads comes to an end."""
        with self._lock:
            self._store.close()


class _Section(io.RawIOBase):
    """A stretch of a file that others read too; empty once that is closed."""

    def __init__(self, store: IO[bytes], lock: threading.Lock, start: int, end: int) -> None:
        self._store = store
        self._lock = lock
        self._start = start
        self._size = end - start
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; return the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} is before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes; return how many."""
        count = max(0, min(len(buffer), self._size - self._position))
        with self._lock:
            # A decoder that calls back from C cannot be told more than that there is no more.
            if self._store.closed:
                return 0
            self._store.seek(self._start + self._position)
            piece = self._store.read(count)
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
