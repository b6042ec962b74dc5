"""Reading through libsndfile: the formats without a demuxer in formats.py."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import NotAudioError
from .reader import BLOCK_SAMPLES, Source, stopped_early

_UNKNOWN_FRAMES = 1 << 62  # libsndfile gives 2^63 - 1 for a stream of unknown length


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read once from start to end.

    soundfile seeks after every read of a seekable file. In MP3 that throws the bit reservoir away
    and damages the samples after each block (measured: errors up to 0.1 of full scale).
    """

    def seekable(self) -> bool:
        return False


class SoundFileReader:
    """A :class:`~.reader.Reader` on libsndfile.

    Args:
        source: of a format that libsndfile reads.
        unsupported: raised if libsndfile cannot open it.

    Raises:
        NotAudioError: ``unsupported``.
    """

    def __init__(self, source: Source, unsupported: NotAudioError) -> None:
        self._source = source
        try:
            self._stream = _Stream(source)
        except Exception as error:  # hostile headers raise many types; users never see their text
            raise unsupported from error
        self.rate_hz: int = self._stream.samplerate
        self.num_channels: int = self._stream.channels
        self.format: str = self._stream.format
        frames: int = self._stream.frames
        self.stated_frames = None if frames >= _UNKNOWN_FRAMES else frames

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the audio in blocks; see :meth:`.reader.Reader.blocks`."""
        stated = self.stated_frames
        block_frames = max(1, BLOCK_SAMPLES // self.num_channels)
        if stated is not None:
            block_frames = min(block_frames, stated)
        num_frames = 0
        while True:
            try:
                block = self._stream.read(block_frames, dtype="float32", always_2d=True)
            except Exception as error:  # as in __init__
                raise stopped_early(num_frames, stated, self.rate_hz) from error
            if len(block) == 0:
                break
            num_frames += len(block)
            yield block
        # Without an index the length of an MP3 is a guess from its first frame.
        if stated and num_frames < stated and self.format != "MP3":
            raise stopped_early(num_frames, stated, self.rate_hz)

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:
        """Yield sentences for the user; see :meth:`.reader.Reader.warnings`."""
        if peak > 1.0 and self._stream.subtype in ("FLOAT", "DOUBLE"):
            yield f"Samples up to {peak:.4g} were clipped to 1."
        if self.format == "MP3" and self.stated_frames is not None:
            read_s = num_frames / self.rate_hz
            position = self._source.tell()
            size = self._source.seek(0, io.SEEK_END)
            if num_frames < self.stated_frames:
                stated_s = self.stated_frames / self.rate_hz
                yield f"The header of the MP3 states {stated_s:.2f} s; it holds {read_s:.2f} s."
            elif size - position > 4096 + size // 10:
                yield (
                    f"The header of the MP3 states {read_s:.2f} s, which were read, but "
                    f"{size - position} of its {size} bytes follow; export it again with a "
                    "correct index."
                )

    def close(self) -> None:
        """Release libsndfile's handle; the source stays open."""
        self._stream.close()
