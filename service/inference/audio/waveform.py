"""Samples that grow: in memory up to a size, and beyond it in an unnamed temporary file.

The last stretch of a stream, at 16 kHz, and facts about all that has come.
"""

import os
import tempfile
import weakref
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import soxr

from ..errors import (
    AudioTooLongError,
    AudioTooShortError,
    NoRoomError,
)

SAMPLE_RATE_HZ = 16_000
"""The only rate that a bundle sees."""

CLIPPED_LEVEL = 0.999
"""A sample at least this far from zero counts as clipped."""

ChannelMode = Literal["mix", "split"]
"""Average all channels into one waveform, or keep one waveform per channel."""


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


class Waveform:
    """Mono audio.

    Args:
        samples: float32 in [-1, 1], shape ``(num_samples,)``; those of a long recording are in a
            file, and are read part by part.
        sample_rate: in Hz.
    """

    __slots__ = ("_samples", "sample_rate")

    def __init__(
        self, samples: npt.NDArray[np.float32] | Spool, sample_rate: int = SAMPLE_RATE_HZ
    ) -> None:
        self._samples = samples
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def samples(self) -> npt.NDArray[np.float32]:
        """All of them; 230 MB for an hour, so take parts of what may be long."""
        if isinstance(self._samples, Spool):
            return self._samples.read(0, len(self))
        return self._samples

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self) / self.sample_rate

    def part(self, start: int, end: int) -> "Waveform":
        """Samples ``start`` to ``end``: a view, or read from the file."""
        if isinstance(self._samples, Spool):
            return Waveform(self._samples.read(start, end), self.sample_rate)
        return Waveform(self._samples[start:end], self.sample_rate)

    def close(self) -> None:
        """End the file, if the samples are in one; they cannot be read any more."""
        if isinstance(self._samples, Spool):
            self._samples.close()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may be at most, and at least.

    Attributes:
        max_duration_s: seconds to score; with split channels each of them counts.
        max_channels: channels.
        min_rate_hz: lowest sample rate.
        max_rate_hz: highest sample rate.
        min_duration_s: shortest recording, in seconds.
    """

    max_duration_s: float = 7200.0
    max_channels: int = 8
    min_rate_hz: int = 2_000
    max_rate_hz: int = 384_000
    min_duration_s: float = 0.1


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Facts about a recording as it was sent.

    Attributes:
        duration_s: seconds decoded.
        sample_rate_hz: before resampling.
        channels: before mixing.
        format: container: WAV, FLAC, OGG, MP3, MP4, WEBM, ...
        warnings: sentences for the user.
        clipped_ratio: share of samples at full scale before resampling, in [0, 1].
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    format: str
    warnings: tuple[str, ...] = ()
    clipped_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded recording: one waveform when mixed, one per channel when split."""

    info: AudioInfo
    waveforms: tuple[Waveform, ...]

    def close(self) -> None:
        """End the files of a long recording, which also end with the last reference to it."""
        for waveform in self.waveforms:
            waveform.close()


class PcmBuffer:
    """Takes samples as they come; positions are in samples at 16 kHz from the start of the stream.

    Args:
        rate_hz: of what comes.
        channels: interleaved in it; their mean is kept.
        limits: how much may come, and has to.
    """

    def __init__(self, rate_hz: int, channels: int, limits: Limits) -> None:
        self._rate_hz = rate_hz
        self._channels = channels
        self._limits = limits
        self._resampler = (
            None
            if rate_hz == SAMPLE_RATE_HZ
            else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        )
        self._samples = np.zeros(0, np.float32)
        self._num_frames = 0
        self._num_clipped = 0
        self.base = 0
        """Where it begins: what was before is forgotten."""

    @property
    def end(self) -> int:
        """Where it ends, as far as it is resampled: up to 115 ms after that have come."""
        return self.base + len(self._samples)

    @property
    def info(self) -> AudioInfo:
        """Facts about what has come so far."""
        return AudioInfo(
            duration_s=self._num_frames / self._rate_hz,
            sample_rate_hz=self._rate_hz,
            channels=self._channels,
            format="PCM",
            clipped_ratio=self._num_clipped / max(1, self._num_frames * self._channels),
        )

    def frames_until(self, position: int) -> int:
        """Frames that have to come until it reaches a position, about; or one too many."""
        missing = max(0, position - self.end)
        allowed = int(self._limits.max_duration_s * self._rate_hz) - self._num_frames
        return min(-(-missing * self._rate_hz // SAMPLE_RATE_HZ), allowed + 1)

    def push(self, frames: npt.NDArray[np.int16]) -> None:
        """Add 16-bit samples of shape ``(num_frames, channels)``.

        Raises:
            AudioTooLongError: if more has come than the limit.
        """
        if not len(frames):
            return
        self._num_frames += len(frames)
        if self._num_frames > self._limits.max_duration_s * self._rate_hz:
            raise AudioTooLongError(
                f"{self._num_frames / self._rate_hz:.1f} s of audio; at most "
                f"{self._limits.max_duration_s:g} s is scored in one stream: begin another."
            )
        block = frames.astype(np.float32) / np.float32(32768)
        self._num_clipped += int(np.count_nonzero(np.abs(block) >= CLIPPED_LEVEL))
        mono = block.mean(axis=1, keepdims=True)
        self._append(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def flush(self) -> None:
        """Resample the rest.

        Raises:
            AudioTooShortError: if next to nothing has come.
        """
        if self.info.duration_s < self._limits.min_duration_s:
            raise AudioTooShortError(
                f"{self.info.duration_s:.4g} s of audio; at least "
                f"{self._limits.min_duration_s:g} s is needed."
            )
        if self._resampler is not None:
            self._append(self._resampler.resample_chunk(np.zeros((0, 1), np.float32), last=True))

    def part(self, start: int, end: int) -> Waveform:
        """What lies between two positions."""
        assert self.base <= start, f"{start} was dropped: {self.base}"
        return Waveform(self._samples[start - self.base : end - self.base])

    def drop(self, before: int) -> None:
        """Drop what lies before a position."""
        if (num_samples := before - self.base) > 0:
            self._samples = self._samples[num_samples:].copy()
            self.base += num_samples

    def _append(self, block: npt.NDArray[np.float32]) -> None:
        self._samples = np.concatenate([self._samples, np.clip(block[:, 0], -1.0, 1.0)])
