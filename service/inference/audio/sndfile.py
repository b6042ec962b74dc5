"""Reading through libsndfile: FLAC, Ogg, MP3, AIFF, AU, CAF, and WAV that wav.py leaves."""

import io
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ..errors import NotAudioError
from .formats import end_of_tags
from .headers import mended
from .joined import Piece, first_frame, index_frame, mp3_pieces, ogg_pieces
from .reader import BLOCK_SAMPLES, DecodeBudget, Source, stopped_early

_UNKNOWN_FRAMES = 1 << 62  # libsndfile gives 2^63 - 1 for a stream of unknown length
_MAX_TRAILER_BYTES = 4096


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
        sources: the recordings of the file, one after the other; most files hold one.
        unsupported: raised if libsndfile cannot open the first.
        remarks: sentences for the user.

    Raises:
        NotAudioError: ``unsupported``.
    """

    num_tracks = 1

    def __init__(
        self, sources: Sequence[Source], unsupported: NotAudioError, remarks: Sequence[str] = ()
    ) -> None:
        self._sources = sources
        self._unsupported = unsupported
        self._remarks = list(remarks)
        self._stream = self._open(sources[0])
        self.rate_hz: int = self._stream.samplerate
        self.num_channels: int = self._stream.channels
        self.format: str = self._stream.format
        self._may_be_short = self.format == "MP3"
        self.stated_frames = self._stated() if len(sources) == 1 else None

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the audio in blocks; see :meth:`.reader.Reader.blocks`."""
        yield from self._blocks(0)
        num_frames = self._num_frames
        for source in self._sources[1:]:
            self._stream.close()
            self._stream = self._open(source)
            seen = self._stream.samplerate, self._stream.channels
            if seen != (self.rate_hz, self.num_channels):
                self._remarks.append(
                    f"From {num_frames / self.rate_hz:.1f} s on the {self.format} has {seen[0]} Hz "
                    f"and {seen[1]} channels; it was converted to {self.rate_hz} Hz and "
                    f"{self.num_channels}."
                )
                yield from self._converted(num_frames, *seen)
            else:
                yield from self._blocks(num_frames)
            num_frames += self._num_frames

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:  # noqa: ARG002
        """Yield sentences for the user; see :meth:`.reader.Reader.warnings`."""
        if peak > 1.0 and self._stream.subtype in ("FLOAT", "DOUBLE"):
            yield f"Samples up to {peak:.4g} were clipped to 1."
        yield from self._remarks

    def close(self) -> None:
        """Release libsndfile's handle; the sources stay open."""
        self._stream.close()

    def _open(self, source: Source) -> _Stream:
        try:
            return _Stream(source)
        except Exception as error:  # hostile headers raise many types; users never see their text
            raise self._unsupported from error

    def _stated(self) -> int | None:
        frames: int = self._stream.frames
        return None if frames >= _UNKNOWN_FRAMES else frames

    def _converted(
        self, before: int, rate_hz: int, num_channels: int
    ) -> Iterator[npt.NDArray[np.float32]]:
        """The blocks of a stream of another shape, in the shape of the first."""
        resampler = soxr.ResampleStream(rate_hz, self.rate_hz, num_channels, dtype="float32")
        nothing = np.zeros((0, num_channels), np.float32)
        converted = 0
        for block in chain(self._blocks(before), [nothing]):
            resampled = resampler.resample_chunk(block, last=block is nothing)
            if num_channels != self.num_channels:
                mean = resampled.mean(axis=1, keepdims=True)
                resampled = np.repeat(mean, self.num_channels, axis=1)
            converted += len(resampled)
            if len(resampled):
                yield resampled
        self._num_frames = converted

    def _blocks(self, before: int) -> Iterator[npt.NDArray[np.float32]]:
        """The blocks of the stream that is open, after so many frames of others."""
        stated = self._stated()
        num_channels: int = self._stream.channels
        block_frames = max(1, BLOCK_SAMPLES // num_channels)
        if stated is not None:
            block_frames = min(block_frames, stated)
        self._num_frames = 0
        while block_frames:
            block = np.full((block_frames, num_channels), np.nan, np.float32)
            failure: Exception | None = None
            try:
                num_read = len(self._stream.read(out=block))
            except Exception as error:  # as in _open; what was decoded before it counts
                num_read, failure = _num_filled(block), error
            self._num_frames += num_read
            if num_read:
                yield block[:num_read]
            # FLAC with something behind its end fails there, and all of it has been decoded
            if failure is not None and (stated is None or self._num_frames < stated):
                raise stopped_early(before + self._num_frames, stated, self.rate_hz) from failure
            if failure is not None or num_read == 0:
                break
        if not stated or self._num_frames >= stated:
            return
        if not self._may_be_short:
            raise stopped_early(before + self._num_frames, stated, self.rate_hz)
        # The index of an MP3 that breaks off, or of one that was cut out of another.
        self._remarks.append(
            f"The header of the MP3 states {stated / self.rate_hz:.2f} s; it holds "
            f"{self._num_frames / self.rate_hz:.2f} s."
        )


def _num_filled(block: npt.NDArray[np.float32]) -> int:
    """Rows before the first that libsndfile left as it was."""
    empty = np.isnan(block[:, 0])
    return int(np.argmax(empty)) if empty.any() else len(block)


def open_sound(
    file: BinaryIO,
    budget: DecodeBudget,
    unsupported: NotAudioError,
    bounds: tuple[int, int] | None = None,
) -> SoundFileReader:
    """Open a file of a format that libsndfile reads.

    Args:
        file: seekable.
        budget: charged for what is read.
        unsupported: raised if libsndfile cannot open it.
        bounds: of an MP3 stream within the file.

    Raises:
        NotAudioError: ``unsupported``.
    """
    start = end_of_tags(file)
    size = file.seek(0, io.SEEK_END)
    file.seek(start)
    head = file.read(64)
    if bounds is not None or head[:1] == b"\xff" or _is_late_mp3(file, head, start):
        return _open_mp3(file, budget, unsupported, bounds or (start, size))
    if head[:4] == b"OggS":
        return _open_ogg(file, budget, unsupported, start)
    header = mended(file, start, size)
    source = Source(file, budget, start=start + len(header.prefix), prefix=header.prefix)
    return SoundFileReader([source], unsupported, header.remarks)


def _is_late_mp3(file: BinaryIO, head: bytes, start: int) -> bool:
    known = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"caff")
    return head[:4] not in (*known, b"dns.") and first_frame(file, start) is not None


def _open_mp3(
    file: BinaryIO, budget: DecodeBudget, unsupported: NotAudioError, bounds: tuple[int, int]
) -> SoundFileReader:
    """Open each piece of an MP3 with an index that tells its length."""
    pieces = mp3_pieces(file, *bounds)
    if not pieces:  # a free bit rate: libmpg123 measures its frames
        whole = Source(file, budget, start=bounds[0], end=bounds[1])
        return SoundFileReader([whole], unsupported)
    remarks = []
    if len(pieces) > 1:
        remarks.append(f"The MP3 consists of {len(pieces)} pieces; all of them were read.")
    left = bounds[1] - pieces[-1].end
    if left > _MAX_TRAILER_BYTES + (bounds[1] - bounds[0]) // 10:
        remarks.append(f"The last {left} bytes of the MP3 hold no audio.")
    return SoundFileReader([_mp3_source(file, budget, one) for one in pieces], unsupported, remarks)


def _mp3_source(file: BinaryIO, budget: DecodeBudget, piece: Piece) -> Source:
    start, end = piece.start, piece.end
    if not piece.is_layer_3:  # of a constant bit rate
        return Source(file, budget, start=start, end=end)
    if piece.indexed_frames is None:
        return Source(file, budget, start=start, end=end, prefix=index_frame(piece))
    if piece.indexed_frames >= piece.num_frames - 1:
        return Source(file, budget, start=start, end=end)
    first = piece.start + piece.first_frame_bytes  # its own index states less than there is
    return Source(file, budget, start=first, end=end, prefix=index_frame(piece))


def _open_ogg(
    file: BinaryIO, budget: DecodeBudget, unsupported: NotAudioError, start: int
) -> SoundFileReader:
    pieces = ogg_pieces(file, start)
    remarks = []
    if len(pieces) > 1:
        remarks.append(f"The Ogg holds {len(pieces)} recordings; all of them were read.")
    if not pieces[-1].is_complete:
        remarks.append("The Ogg breaks off: its last page is missing, and what is there was read.")
    sources = [Source(file, budget, start=piece.start, end=piece.end) for piece in pieces]
    return SoundFileReader(sources, unsupported, remarks)
