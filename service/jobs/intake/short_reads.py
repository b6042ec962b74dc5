"""A file of which no large piece is read at once."""

import io
from typing import BinaryIO

from service.jobs.intake.errors import ArchiveError


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
