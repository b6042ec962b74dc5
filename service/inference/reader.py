"""What every reader of files gives: facts from the header, then blocks of samples."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.inference.errors import DamagedAudioError

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
