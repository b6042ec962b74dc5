"""Resampling to 16 kHz, block by block, of recordings and of streams that somebody waits for."""

import math

import numpy as np
import numpy.typing as npt
import soxr

SAMPLE_RATE_HZ = 16_000
"""The sample rate that every bundle works at."""

Samples = npt.NDArray[np.float32]

_HALF_FILTER = 104
"""Periods of the lower rate on which a sample depends, on either side: 100 in soxr's HQ."""


class Resampler:
    """Resamples a stream to 16 kHz, band-limited; how it is cut into blocks makes no difference.

    Args:
        rate_hz: of the blocks; at 16 kHz they pass unchanged.
        num_channels: of the blocks.
    """

    def __init__(self, rate_hz: int, num_channels: int) -> None:
        self._num_channels = num_channels
        self._stream = (
            None
            if rate_hz == SAMPLE_RATE_HZ
            else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, num_channels, dtype="float32")
        )

    def push(self, block: Samples) -> Samples:
        """Resample a block of shape ``(num_frames, num_channels)``.

        Returns:
            What is complete, shape ``(num_resampled, num_channels)``, in [-1, 1]; the filter holds
            back up to 115 ms.
        """
        return self._resample(block, last=False)

    def flush(self) -> Samples:
        """Return what the filter held back; nothing can be pushed any more."""
        return self._resample(np.zeros((0, self._num_channels), np.float32), last=True)

    def _resample(self, block: Samples, *, last: bool) -> Samples:
        if self._stream is None:
            return block
        resampled: Samples = self._stream.resample_chunk(block, last=last)
        return np.clip(resampled, -1.0, 1.0, out=resampled)  # the filter overshoots at full scale


class LiveResampler:
    """Gives the same samples of one channel, and sooner.

    soxr's stream computes in blocks and so holds back up to 115 ms of 8 kHz, where the filter needs
    13 ms of what follows. This resamples each block anew, with as much audio on either side.

    Args:
        rate_hz: of the blocks; at 16 kHz they pass unchanged.

    Examples:
        >>> live = LiveResampler(8_000)
        >>> [len(live.push(np.zeros((800, 1), np.float32))) for _ in range(3)]
        [1392, 1600, 1600]
        >>> len(live.flush())
        208
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        # Frames are dropped up to where a frame and a sample fall together: the phase stays.
        self._unit = rate_hz // math.gcd(rate_hz, SAMPLE_RATE_HZ)
        self._beside = math.ceil(_HALF_FILTER * rate_hz / min(rate_hz, SAMPLE_RATE_HZ))
        self._frames = np.zeros(0, np.float32)
        self._num_given = 0  # samples, counted from the first of the frames

    def push(self, block: Samples) -> Samples:
        """Resample a block of shape ``(num_frames, 1)``.

        Returns:
            What is complete, shape ``(num_resampled, 1)``, in [-1, 1].
        """
        if self._rate_hz == SAMPLE_RATE_HZ:
            return block
        self._frames = np.concatenate([self._frames, block[:, 0]])
        return self._give((len(self._frames) - self._beside) * SAMPLE_RATE_HZ // self._rate_hz)

    def flush(self) -> Samples:
        """Return what was held back; nothing can be pushed any more."""
        return self._give(-(-len(self._frames) * SAMPLE_RATE_HZ // self._rate_hz))

    def _give(self, end: int) -> Samples:
        if end <= self._num_given:
            return np.zeros((0, 1), np.float32)
        found: Samples = soxr.resample(self._frames, self._rate_hz, SAMPLE_RATE_HZ)
        given = np.clip(found[self._num_given : end, None], -1.0, 1.0)
        self._num_given += len(given)
        done = self._num_given * self._rate_hz // SAMPLE_RATE_HZ - self._beside
        if (num_units := done // self._unit) > 0:
            self._frames = self._frames[num_units * self._unit :]
            self._num_given -= num_units * self._unit * SAMPLE_RATE_HZ // self._rate_hz
        return given
