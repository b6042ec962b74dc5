"""Samples that grow: in memory up to a size, and beyond it in an unnamed temporary file."""

import os
import tempfile
import weakref

import numpy as np
import numpy.typing as npt

from service.inference.errors import NoRoomError

Samples = npt.NDArray[np.float32]

_SAMPLE_BYTES = 4


class Spool:
    """Float32 samples of one channel in an unnamed file.

    Its folder is that of temporary files (TMPDIR).

    Raises:
        NoRoomError: if the file cannot be made.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see finalize
        except OSError as error:
            raise _no_room(0) from error
        self.close = weakref.finalize(self, self._file.close)
        """Ends the file at once; otherwise it ends with the last reference."""
        self._num_bytes = 0

    def __len__(self) -> int:
        return self._num_bytes // _SAMPLE_BYTES

    def append(self, data: bytes | bytearray) -> None:
        """Write behind what is there.

        Raises:
            NoRoomError: if the disk is full.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _no_room(self._num_bytes) from error
        self._num_bytes += len(data)

    def read(self, start: int, end: int) -> Samples:
        """Read samples ``start`` to ``end``, cut at the end of the file; from any thread."""
        samples = np.empty(max(0, min(end, len(self)) - start), np.float32)
        rest, position = samples.view(np.uint8).data, start * _SAMPLE_BYTES
        while rest:
            num_bytes = os.preadv(self._file.fileno(), [rest], position)
            assert num_bytes, f"the spool ends before sample {end}"
            rest, position = rest[num_bytes:], position + num_bytes
        return samples


class Store:
    """Takes samples until they are all there.

    Args:
        held_bytes: kept in memory at most.
    """

    def __init__(self, held_bytes: int) -> None:
        # A bytearray grows in place; joining a list of blocks would need twice the memory.
        self._held = bytearray()
        self._held_bytes = held_bytes
        self._spool: Spool | None = None

    def append(self, samples: Samples) -> None:
        """Add samples of shape ``(n,)``."""
        self._held += samples.tobytes()
        if self._spool is not None or len(self._held) > self._held_bytes:
            self._spool = self._spool or Spool()
            self._spool.append(self._held)
            self._held = bytearray()

    def discard(self) -> None:
        """Drop all of them."""
        self._held = bytearray()
        if self._spool is not None:
            self._spool.close()

    def finish(self) -> Samples | Spool:
        """All of them, in memory or in a file."""
        return np.frombuffer(self._held, np.float32) if self._spool is None else self._spool


def _no_room(num_bytes: int) -> NoRoomError:
    return NoRoomError(
        f"A long recording is kept in a temporary file, and there was no room for more than "
        f"{num_bytes / 1e6:.0f} MB of it; send it in parts, or come back later."
    )
