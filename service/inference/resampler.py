"""Blocks of audio at any rate, gathered at another."""

import numpy as np
import numpy.typing as npt
import soxr

from service.inference.spool import Spool, Store

HELD_BYTES = 1 << 24
"""Result that is kept in memory, all channels together; a longer one goes into files."""


class Resampler:
    """Resamples a stream, band-limited; the result does not depend on how it was cut into blocks.

    Args:
        in_rate: of the blocks, in Hz.
        out_rate: of the result, in Hz; where it is the same, samples pass unchanged.
        num_channels: of the blocks.
    """

    def __init__(self, in_rate: int, out_rate: int, num_channels: int) -> None:
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, num_channels, dtype="float32")
        )
        self._outputs = [Store(HELD_BYTES // num_channels) for _ in range(num_channels)]

    def push(self, block: npt.NDArray[np.float32], *, last: bool = False) -> None:
        """Add a block of shape ``(frames, num_channels)``.

        Raises:
            NoRoomError: if the result is long, and there is no room for it on the disk.
        """
        if self._stream is not None:
            block = self._stream.resample_chunk(block, last=last)
            np.clip(block, -1.0, 1.0, out=block)  # the filter overshoots at full scale
        for channel, output in enumerate(self._outputs):
            output.append(block[:, channel])

    def discard(self) -> None:
        """Drop the result, and its files."""
        for output in self._outputs:
            output.discard()

    def finish(self) -> list[npt.NDArray[np.float32] | Spool]:
        """Flush the filter and return the samples of each channel."""
        self.push(np.zeros((0, len(self._outputs)), np.float32), last=True)
        return [output.finish() for output in self._outputs]
