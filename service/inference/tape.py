"""The last stretch of a stream, at 16 kHz, and facts about all that has come."""

import numpy as np
import numpy.typing as npt
import soxr

from service.inference.audio import CLIPPED_LEVEL, SAMPLE_RATE_HZ, AudioInfo, Limits, Waveform
from service.inference.errors import AudioTooLongError, AudioTooShortError


class Tape:
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

    def take(self, frames: npt.NDArray[np.int16]) -> None:
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

    def finish(self) -> None:
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

    def stretch(self, start: int, end: int) -> Waveform:
        """What lies between two positions."""
        assert self.base <= start, f"{start} is forgotten: {self.base}"
        return Waveform(self._samples[start - self.base : end - self.base])

    def forget(self, before: int) -> None:
        """Drop what lies before a position."""
        if (drop := before - self.base) > 0:
            self._samples = self._samples[drop:].copy()
            self.base += drop

    def _append(self, block: npt.NDArray[np.float32]) -> None:
        self._samples = np.concatenate([self._samples, np.clip(block[:, 0], -1.0, 1.0)])
