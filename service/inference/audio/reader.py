"""What the two readers share: their contract, a bounded source of bytes, a budget for decoding."""

import contextlib
import io
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import AudioError, CostlyAudioError, DamagedAudioError, NoRoomError
from .formats import end_of_tags

BLOCK_SAMPLES = 1 << 14
"""Samples in a block, all channels together, about."""

CPU_S = 10.0
"""CPU seconds that decoding any file may take."""

CPU_S_PER_AUDIO_S = 0.1
"""CPU seconds allowed in addition per second of audio. The most expensive formats measured, eight
channels of Opus or of 384 kHz, took 0.024 on one core of a server."""

MAX_BYTES_WITHOUT_AUDIO = 64 << 20
"""Bytes read before the first sample, and between one block of samples and the next, at most."""


log = logging.getLogger("nnpm")


class Reader(Protocol):
    """One recording, read once from start to end.

    Attributes:
        rate_hz: sample rate.
        num_channels: 1 or more.
        format: the container, as users read it.
        stated_frames: length that the header states, in frames; None if it states none.
        num_tracks: sound tracks, of which one is read.
    """

    rate_hz: int
    num_channels: int
    format: str
    stated_frames: int | None
    num_tracks: int

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the audio in blocks.

        Yields:
            Writable float32 arrays of shape ``(num_frames, num_channels)``; full scale is 1.

        Raises:
            DamagedAudioError: if decoding stops before the end.
        """
        ...

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:
        """Yield sentences for the user about a recording that was read to its end.

        Args:
            num_frames: frames that were read.
            peak: magnitude of the largest sample; full scale is 1.
        """
        ...

    def close(self) -> None:
        """Release the library's handle; the file stays open. Raises nothing."""
        ...


def stopped_early(num_frames: int, stated_frames: int | None, rate_hz: int) -> DamagedAudioError:
    """Make the error for audio that ends, or cannot be decoded any further, before its end."""
    of = ""
    if stated_frames is not None:
        of = f" of the {stated_frames / rate_hz:.1f} s that its header states"
    return DamagedAudioError(
        f"The file is damaged: decoding stopped after about {num_frames / rate_hz:.1f} s{of}; "
        "send the whole file."
    )


def shape_changed(before: tuple[int, int], now: tuple[int, int], at_s: float) -> DamagedAudioError:
    """Make the error for audio whose rate or channels change, each given as (Hz, channels)."""
    return DamagedAudioError(
        f"The audio changes from {before[0]} Hz and {before[1]} channels to {now[0]} Hz and "
        f"{now[1]} channels after {at_s:.1f} s; export it again with one sample rate and one "
        "number of channels."
    )


def decoder_stalled(stall_s: float) -> CostlyAudioError:
    """Make the error for a process that decodes, and sends nothing."""
    return CostlyAudioError(
        f"Decoding was stopped, because it came to no sample within {stall_s:g} s; export the file "
        "again."
    )


def decoder_died(status: int) -> AudioError:
    """Make the error for a file at which the process that decodes ended, by its exit status."""
    if status == -signal.SIGPROF:
        return CostlyAudioError(
            "Decoding was stopped, because it took too long without coming to a sample; export the "
            "file again."
        )
    log.warning("a decoder process ended with status %d", status)
    return DamagedAudioError(
        "The file is damaged: the decoder could not go on with it; export the audio again."
    )


class DecodeBudget:
    """What decoding one file may cost, on one thread, in proportion to the audio in it.

    Limits on length, channels and rate bound what a file may *contain*. The budget bounds what is
    spent on a file that contains little: headers of a million entries, or tags of hundreds of
    megabytes, which a library keeps in memory.
    """

    def __init__(self) -> None:
        self._started_s = time.thread_time()
        self._audio_s = 0.0
        self._bytes = 0
        self._error: CostlyAudioError | None = None

    def charge(self, num_bytes: int) -> bool:
        """Count bytes before they are read.

        Returns:
            Whether they may be read; once False, always False.
        """
        self._bytes += num_bytes
        if self._error is None:
            self._error = self._exceeded()
        return self._error is None

    def add_audio(self, audio_s: float) -> None:
        """Count seconds of audio that were decoded."""
        self._audio_s += audio_s
        self._bytes = 0

    @property
    def left_s(self) -> float:
        """CPU seconds that may still be used."""
        return CPU_S + CPU_S_PER_AUDIO_S * self._audio_s - (time.thread_time() - self._started_s)

    def check(self) -> None:
        """Check that the budget is not exceeded.

        Raises:
            CostlyAudioError: if it is.
        """
        if not self.charge(0):
            assert self._error is not None
            raise self._error

    def _exceeded(self) -> CostlyAudioError | None:
        spent_s = time.thread_time() - self._started_s
        if self._bytes > MAX_BYTES_WITHOUT_AUDIO:
            return CostlyAudioError(
                f"The file has more than {MAX_BYTES_WITHOUT_AUDIO} bytes without a sample, after "
                f"{self._audio_s:.1f} s of audio; export it again, without tags."
            )
        if spent_s > CPU_S + CPU_S_PER_AUDIO_S * self._audio_s:
            return CostlyAudioError(
                f"Decoding took {spent_s:.1f} s for {self._audio_s:.1f} s of audio; at most "
                f"{CPU_S:g} s plus {CPU_S_PER_AUDIO_S:g} s per second of audio is allowed: export "
                "the file again."
            )
        return None


class Source(io.RawIOBase):
    """A read-only view of a part of a seekable binary file, for a C library to read from.

    The library calls it back from C, where an exception can only be printed. So a seek to before
    the start, which a damaged header may ask for, leaves the position as it is; and when the
    budget is spent the file seems to end.

    Args:
        file: stays open, and the caller's.
        budget: charged for what is read.
        start: first byte of the part; by default behind ID3v2 tags, as libmpg123 would keep the
            whole of a tag in memory, twice.
        end: behind its last byte; by default the file's.
        prefix: bytes that seem to come before the part.
    """

    def __init__(
        self,
        file: BinaryIO,
        budget: DecodeBudget,
        *,
        start: int | None = None,
        end: int | None = None,
        prefix: bytes = b"",
    ) -> None:
        self._file = file
        self._budget = budget
        self._prefix = prefix
        self._start = end_of_tags(file) if start is None else start
        self._end = file.seek(0, io.SEEK_END) if end is None else end
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move where possible; return the position."""
        size = len(self._prefix) + max(0, self._end - self._start)
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}[whence]
        if 0 <= origin + offset < _MAX_POSITION:
            self._position = origin + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes; return how many."""
        if not self._budget.charge(len(buffer)):
            return 0
        size, offset = len(buffer), self._position - len(self._prefix)
        if offset < 0:
            data = self._prefix[self._position : self._position + size]
        else:
            data = self._fetch(offset, max(0, min(size, self._end - self._start - offset)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, offset: int, size: int) -> bytes:
        self._file.seek(self._start + offset)
        return self._file.read(size)


_MAX_POSITION = 1 << 62
_IN_MEMORY_BYTES = 1 << 20


def descriptor_of(file: BinaryIO, stack: contextlib.ExitStack) -> int:
    """A descriptor of a file: its own, or that of a copy in memory."""
    size = file.seek(0, io.SEEK_END)
    is_plain = isinstance(file, io.BufferedReader | io.BufferedRandom | io.FileIO)
    # Of a spooled file in memory, fileno() would make one on the disk.
    if is_plain or size > _IN_MEMORY_BYTES:
        with contextlib.suppress(OSError, AttributeError):
            file.flush()
            own: int = file.fileno()
            return own
    try:
        copy = stack.enter_context(_empty_file())
        file.seek(0)
        while piece := file.read(_IN_MEMORY_BYTES):
            copy.write(piece)
        copy.flush()
    except OSError as error:
        raise NoRoomError("There is no room for a copy of the recording; try again.") from error
    descriptor: int = copy.fileno()
    return descriptor


def _empty_file() -> Any:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("recording", os.MFD_CLOEXEC), "w+b", buffering=0)
    return tempfile.TemporaryFile()
