"""Audio at 16 kHz: a recording and its waveforms, in memory or in a file, whole or arriving.

A long recording is kept in an unnamed temporary file and read part by part; of a stream only the
latest audio is kept.
"""

import os
import tempfile
import weakref
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import AudioTooLongError, AudioTooShortError, NoRoomError
from .resampling import SAMPLE_RATE_HZ as SAMPLE_RATE_HZ
from .resampling import LiveResampler
from .resampling import Samples as Samples

CLIPPED_LEVEL = 0.999
"""A sample of at least this magnitude counts as clipped."""

ChannelMode = Literal["mix", "split"]
"""Average all channels into one waveform, or keep one waveform per channel."""

_SAMPLE_BYTES, _CANCELLED_SHARE, _SILENT_POWER = 4, 0.15, 1e-7


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may have at most, and at least.

    Attributes:
        max_duration_s: seconds to score; if channels are split, their sum.
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
    """A decoded recording.

    Attributes:
        info: facts about it as it was sent.
        waveforms: one if the channels were mixed, one per channel if they were split.
        peaks: if asked for, least and greatest sample of each part of each channel as it was sent,
            float32, shape ``(channels, num_parts, 2)``.
    """

    info: AudioInfo
    waveforms: tuple["Waveform", ...]
    peaks: Samples | None = None

    def close(self) -> None:
        """Delete the files of a long recording now; otherwise its last reference does."""
        for waveform in self.waveforms:
            waveform.close()


class Waveform:
    """Mono audio.

    Args:
        samples: float32 in [-1, 1], shape ``(num_samples,)``; or the file that holds them.
        sample_rate: in Hz.

    Examples:
        >>> clip = Waveform(np.zeros(24_000, np.float32))
        >>> clip.duration_s, len(clip.part(0, 8_000))
        (1.5, 8000)
    """

    __slots__ = ("_samples", "sample_rate")

    def __init__(self, samples: "Samples | Spool", sample_rate: int = SAMPLE_RATE_HZ) -> None:
        self._samples = samples
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def samples(self) -> Samples:
        """All samples; 230 MB for an hour, so take parts of what may be long."""
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
        """Delete the file, if there is one; its samples can no longer be read."""
        if isinstance(self._samples, Spool):
            self._samples.close()


class SampleStore:
    """Collects samples in memory, and beyond a size in a file.

    Args:
        memory_bytes: kept in memory at most.
    """

    def __init__(self, memory_bytes: int) -> None:
        # A bytearray grows in place; joining a list of blocks would need twice the memory.
        self._pending = bytearray()
        self._memory_bytes = memory_bytes
        self._spool: Spool | None = None

    def append(self, samples: Samples) -> None:
        """Add samples of shape ``(num_samples,)``.

        Raises:
            NoRoomError: if they go into a file, and the disk is full.
        """
        self._pending += np.ascontiguousarray(samples).data.cast("B")
        if self._spool is not None or len(self._pending) > self._memory_bytes:
            self._spool = self._spool or Spool()
            self._spool.append(self._pending)
            self._pending = bytearray()

    def discard(self) -> None:
        """Drop all samples, and the file."""
        self._pending = bytearray()
        if self._spool is not None:
            self._spool.close()

    def finish(self) -> "Samples | Spool":
        """Return all samples, or the file that holds them."""
        return np.frombuffer(self._pending, np.float32) if self._spool is None else self._spool


class Spool:
    """Float32 samples of one channel in an unnamed file, in the folder for temporary files.

    Raises:
        NoRoomError: if the file cannot be made.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see finalize
        except OSError as error:
            raise _no_room(0) from error
        self.close = weakref.finalize(self, self._file.close)
        """Deletes the file now; otherwise the last reference does."""
        self._num_bytes = 0

    def __len__(self) -> int:
        return self._num_bytes // _SAMPLE_BYTES

    def append(self, data: bytes | bytearray) -> None:
        """Append float32 samples.

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
        """Read samples ``start`` to ``end``, or to the end of the file; from any thread."""
        samples = np.empty(max(0, min(end, len(self)) - start), np.float32)
        rest, position = samples.view(np.uint8).data, start * _SAMPLE_BYTES
        while rest:
            num_bytes = os.preadv(self._file.fileno(), [rest], position)
            assert num_bytes, f"the file ends before sample {end}"
            rest, position = rest[num_bytes:], position + num_bytes
        return samples


def _no_room(num_bytes: int) -> NoRoomError:
    return NoRoomError(
        f"A long recording is kept in a temporary file, and the disk had no room for more than "
        f"{num_bytes / 1e6:.0f} MB of it; send it in parts, or try again later."
    )


class Loudness:
    """How loud channels are, and their mean: channels of opposite phase cancel each other out."""

    def __init__(self, num_channels: int) -> None:
        self._num_channels = num_channels
        self._num_frames = 0
        self._sums, self._squares = np.zeros((2, num_channels + 1))

    def add(self, block: Samples, mean: Samples) -> None:
        """Add a block of shape ``(num_frames, num_channels)``, and the mean of its channels."""
        self._num_frames += len(block)
        both = np.concatenate([block, mean], axis=1)
        self._sums += both.sum(axis=0)
        self._squares += np.einsum("ij,ij->j", both, both)

    def cancelled_channel(self) -> int | None:
        """The loudest channel, if the mean is much quieter than channels that differ would be."""
        power = self._squares - self._sums**2 / max(1, self._num_frames)
        channels, mean = power[:-1], power[-1]
        # the mean of independent channels has a share of 1 / num_channels
        is_quiet = mean < _CANCELLED_SHARE * channels.mean() / self._num_channels
        is_heard = channels.sum() > _SILENT_POWER * self._num_frames
        return int(np.argmax(channels)) if is_quiet and is_heard else None

    def remark(self, channel: int) -> str:
        """A sentence for the user about a channel that is taken in place of the mean."""
        return (
            f"The {self._num_channels} channels cancel each other out when they are mixed; channel "
            f"{channel + 1}, the loudest, was scored in place of their mean."
        )


class PcmBuffer:
    """The latest audio of a stream; positions are in samples at 16 kHz from its start.

    Args:
        rate_hz: sample rate of the stream.
        channels: interleaved in the stream; their mean is kept, or the loudest where they cancel
            each other out.
        limits: how long the stream may be, and has to be.

    Examples:
        >>> buffer = PcmBuffer(16_000, 2, Limits())
        >>> buffer.push(np.zeros((1_600, 2), np.int16))
        >>> buffer.drop(400)
        >>> buffer.base, buffer.end, len(buffer.part(1_000, 1_600))
        (400, 1600, 600)
    """

    def __init__(self, rate_hz: int, channels: int, limits: Limits) -> None:
        self._rate_hz = rate_hz
        self._channels = channels
        self._limits = limits
        self._resampler = LiveResampler(rate_hz)
        self._samples = np.zeros(0, np.float32)
        self._num_frames = 0
        self._num_clipped = 0
        self._loudness = Loudness(channels)
        self._remark = ""
        self.base = 0
        """Position of the first sample that is kept."""

    @property
    def end(self) -> int:
        """Position behind the last sample that is resampled."""
        return self.base + len(self._samples)

    @property
    def info(self) -> AudioInfo:
        """Facts about what has arrived so far."""
        return AudioInfo(
            duration_s=self._num_frames / self._rate_hz,
            sample_rate_hz=self._rate_hz,
            channels=self._channels,
            format="PCM",
            warnings=tuple(filter(None, [self._remark])),
            clipped_ratio=self._num_clipped / max(1, self._num_frames * self._channels),
        )

    def frames_until(self, position: int) -> int:
        """About how many frames are missing to a position; at most one more than the limit."""
        missing = max(0, position - self.end)
        allowed = int(self._limits.max_duration_s * self._rate_hz) - self._num_frames
        return min(-(-missing * self._rate_hz // SAMPLE_RATE_HZ), allowed + 1)

    def push(self, frames: npt.NDArray[np.int16]) -> None:
        """Add 16-bit samples of shape ``(num_frames, channels)``.

        Raises:
            AudioTooLongError: if the stream is longer than the limit.
        """
        if not len(frames):
            return
        self._num_frames += len(frames)
        if self._num_frames > self._limits.max_duration_s * self._rate_hz:
            raise AudioTooLongError(
                f"The stream has {self._num_frames / self._rate_hz:.1f} s of audio; at most "
                f"{self._limits.max_duration_s:g} s is scored in one stream: start another."
            )
        block = frames.astype(np.float32) / np.float32(32768)
        self._num_clipped += int(np.count_nonzero(np.abs(block) >= CLIPPED_LEVEL))
        self._append(self._resampler.push(self._mixed(block)))

    def _mixed(self, block: Samples) -> Samples:
        """The mean of the channels; the loudest, while they cancel each other out."""
        mean: Samples = block.mean(axis=1, keepdims=True)
        if self._channels > 1:
            self._loudness.add(block, mean)
            if (channel := self._loudness.cancelled_channel()) is not None:
                self._remark = self._loudness.remark(channel)
                return block[:, [channel]]
        return mean

    def flush(self) -> None:
        """Resample the rest, at the end of the stream.

        Raises:
            AudioTooShortError: if the stream is shorter than the limit.
        """
        if self.info.duration_s < self._limits.min_duration_s:
            raise AudioTooShortError(
                f"The stream has {self.info.duration_s:.4g} s of audio; at least "
                f"{self._limits.min_duration_s:g} s is needed."
            )
        self._append(self._resampler.flush())

    def part(self, start: int, end: int) -> Waveform:
        """The audio between two positions that are kept; a view."""
        assert self.base <= start, f"{start} was dropped: {self.base}"
        return Waveform(self._samples[start - self.base : end - self.base])

    def drop(self, before: int) -> None:
        """Drop the audio before a position."""
        if (num_samples := before - self.base) > 0:
            self._samples = self._samples[num_samples:].copy()
            self.base += num_samples

    def _append(self, block: Samples) -> None:
        self._samples = np.concatenate([self._samples, block[:, 0]])
