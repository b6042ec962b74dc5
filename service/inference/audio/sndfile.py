"""What libsndfile reads: WAV, FLAC, Ogg, MP3, AIFF, AU, CAF."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import NotAudioError
from .reader import BLOCK_SAMPLES, Source, broken_off

_UNKNOWN_FRAMES = 1 << 62  # libsndfile says 2^63 - 1 for a stream of unknown length


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read once from start to end.

    soundfile seeks after every read of a seekable file. In MP3 that throws the bit reservoir away
    and damages the samples after each block (measured: errors up to 0.1 of full scale).
    """

    def seekable(self) -> bool:
        return False


class SoundFileReader:
    """A :class:`service.inference.reader.Reader` on libsndfile.

    Args:
        source: of a kind that libsndfile reads.
        refusal: raised where it does not.

    Raises:
        NotAudioError: ``refusal``.
    """

    def __init__(self, source: Source, refusal: NotAudioError) -> None:
        self._source = source
        try:
            self._stream = _Stream(source)
        except Exception as error:  # of many kinds for hostile headers; no text of theirs for users
            raise refusal from error
        self.rate_hz: int = self._stream.samplerate
        self.num_channels: int = self._stream.channels
        self.format: str = self._stream.format
        frames: int = self._stream.frames
        self.promised_frames = None if frames >= _UNKNOWN_FRAMES else frames

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield float32 blocks of shape ``(frames, channels)`` until the audio ends."""
        promised = self.promised_frames
        block_frames = max(1, BLOCK_SAMPLES // self.num_channels)
        if promised is not None:
            block_frames = min(block_frames, promised)
        num_frames = 0
        while True:
            try:
                block = self._stream.read(block_frames, dtype="float32", always_2d=True)
            except Exception as error:  # as in __init__
                raise broken_off(num_frames, promised, self.rate_hz) from error
            if len(block) == 0:
                break
            num_frames += len(block)
            yield block
        # Without an index the length of an MP3 is a guess from its first frame.
        if promised and num_frames < promised and self.format != "MP3":
            raise broken_off(num_frames, promised, self.rate_hz)

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:
        """Say what is odd about the whole."""
        if peak > 1.0 and self._stream.subtype in ("FLOAT", "DOUBLE"):
            yield f"Samples up to {peak:.4g} were clipped to 1."
        if self.format == "MP3" and self.promised_frames is not None:
            read_s = num_frames / self.rate_hz
            position = self._source.tell()
            size = self._source.seek(0, io.SEEK_END)
            if num_frames < self.promised_frames:
                promised_s = self.promised_frames / self.rate_hz
                yield f"The MP3 promises {promised_s:.2f} s and holds {read_s:.2f} s."
            elif size - position > 4096 + size // 10:
                yield (
                    f"The MP3 promises {read_s:.2f} s and was read that far, but goes on for "
                    f"{size - position} of {size} bytes; write it again with a correct index."
                )

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()
