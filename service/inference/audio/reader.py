"""What decoding one file may cost, in proportion to the audio that comes of it.

A file as libsndfile may use it: bounded, past its tags, and never a reason to print.

What every reader of files gives: facts from the header, then blocks of samples.
"""

import contextlib
import io
import struct
import time
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import CostlyAudioError, DamagedAudioError

GRACE_S = 10.0
"""CPU seconds that any file may take."""

PER_AUDIO_S = 0.1
"""CPU seconds more for each second of audio. The dearest that we know, eight channels of Opus or of
384 kHz, took 0.024 on one core of a server."""

BYTES_WITHOUT_AUDIO = 64 << 20
"""Bytes read at most before the first samples, and from some samples to the next."""


class DecodeBudget:
    """Counts what one file costs while it is decoded on one thread.

    Length, channels and rate bound what a file may *hold*. This bounds what is spent on a file that
    holds little: headers of a million pieces, tags of hundreds of megabytes that a library keeps.
    """

    def __init__(self) -> None:
        self._started_s = time.thread_time()
        self._audio_s = 0.0
        self._bytes = 0
        self._overdrawn: CostlyAudioError | None = None

    def read(self, num_bytes: int) -> bool:
        """Count bytes before they are read; whether they may be."""
        self._bytes += num_bytes
        if self._overdrawn is None:
            self._overdrawn = self._judge()
        return self._overdrawn is None

    def gain(self, audio_s: float) -> None:
        """Count seconds of audio that came of what was read."""
        self._audio_s += audio_s
        self._bytes = 0

    def check(self) -> None:
        """See whether all is paid for.

        Raises:
            CostlyAudioError: if it is not.
        """
        if not self.read(0):
            assert self._overdrawn is not None
            raise self._overdrawn

    def _judge(self) -> CostlyAudioError | None:
        spent_s = time.thread_time() - self._started_s
        if self._bytes > BYTES_WITHOUT_AUDIO:
            return CostlyAudioError(
                f"More than {BYTES_WITHOUT_AUDIO} bytes without a sample, after "
                f"{self._audio_s:.1f} s of audio; export it again, without tags."
            )
        if spent_s > GRACE_S + PER_AUDIO_S * self._audio_s:
            return CostlyAudioError(
                f"Decoding took {spent_s:.1f} s for {self._audio_s:.1f} s of audio; at most "
                f"{GRACE_S:g} s and {PER_AUDIO_S:g} s for each second of audio are spent: export "
                "it again."
            )
        return None


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

    def __init__(self, file: BinaryIO, allowance: DecodeBudget) -> None:
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


BLOCK_SAMPLES = 1 << 14
"""About how many samples a block holds, all channels together."""


class Reader(Protocol):
    """One recording, read once from its start to its end.

    Attributes:
        rate_hz: samples a second.
        num_channels: 1 or more.
        format: container, for people.
        promised_frames: what the header says of the length; None if nothing.
    """

    rate_hz: int
    num_channels: int
    format: str
    promised_frames: int | None

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield writable float32 blocks of shape ``(frames, channels)`` until the audio ends.

        Raises:
            DamagedAudioError: if it breaks off early.
        """
        ...

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:
        """Say what is odd about the whole, once it is read.

        Args:
            num_frames: that were read.
            peak: the largest sample, in full scales.
        """
        ...

    def close(self) -> None:
        """Let go of the file; no exception."""
        ...


def broken_off(num_frames: int, promised: int | None, rate_hz: int) -> DamagedAudioError:
    """The error for audio that ends, or cannot be decoded any further, before its end."""
    of = "" if promised is None else f" of the {promised / rate_hz:.1f} s that its header promises"
    return DamagedAudioError(
        f"Damaged: decoding breaks off after about {num_frames / rate_hz:.1f} s{of}; "
        "send the whole file."
    )
