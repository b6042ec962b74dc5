"""What libsndfile does not know, through PyAV (FFmpeg): MP4, WebM, AMR, WMA, video files.

PyAV comes with the extra ``media``. FFmpeg reads much that we do not want read, so that a file is
given to the one demuxer that its first bytes name, and only to audio decoders on a list; it may
open no other file or address, allocates no block beyond a bound, and runs on the thread that asks.
"""

import ctypes
import functools
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import DamagedAudioError, NotAudioError
from .formats import Container
from .reader import BLOCK_SAMPLES, DecodeBudget, Source, broken_off

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer


_DECODERS = (
    "aac,aac_latm,ac3,eac3,alac,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,flac,gsm,gsm_ms,"
    "mp1float,mp2,mp2float,mp3,mp3float,opus,libopus,speex,vorbis,"
    "wmalossless,wmapro,wmav1,wmav2,wmavoice,"
    "adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,pcm_alaw,pcm_mulaw,pcm_f32be,pcm_f32le,pcm_f64be,"
    "pcm_f64le,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,pcm_u8"
)

# An index of 700,000 packets: four hours of AAC. FFmpeg builds what a header asks for, and a header
# of 100 bytes may ask for 4 GB.
_MOST_BYTES_AT_ONCE = 1 << 24
_MOST_STREAMS = 32
_OPEN_TIMEOUT_S = 60.0

# Before the first sample: index, tags, cover, and what probing takes (5 MB). All that is kept.
_MOST_HEADER_BYTES = 1 << 25

# A packet holds 2.5 ms at least, and often 20; a hostile file holds millions with nothing in them.
_FREE_PACKETS = 10_000
_PACKETS_PER_SECOND = 1_000

_OPTIONS = {
    "codec_whitelist": _DECODERS,
    "protocol_whitelist": "none",
    "max_streams": str(_MOST_STREAMS),
    "threads": "1",
}

_GENERATE_TIMESTAMPS = 0x0001  # AVFMT_FLAG_GENPTS: buffers packets, to no use of ours
_NEEDS_EXTRA = (
    "{name} needs the extra 'media', which is not installed here: pip install 'nnpm[media]'; "
    "or send WAV, FLAC, MP3 or Ogg."
)


class _Metered(Source):
    """A source that seems to end where a header gets longer than any that is well meant."""

    def __init__(self, file: BinaryIO, allowance: DecodeBudget) -> None:
        super().__init__(file, allowance)
        self.in_header = True
        self._left = _MOST_HEADER_BYTES

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = memoryview(buffer)[: self._left] if self.in_header else buffer
        num_bytes = super().readinto(wanted)
        self._left -= num_bytes
        return num_bytes


class MediaReader:
    """A :class:`service.inference.reader.Reader` on PyAV: the first audio stream of a file.

    Args:
        file: seekable, of a container with a demuxer.
        container: what it is.
        allowance: is charged for what is read.

    Raises:
        NotAudioError: if PyAV is not installed, or reads no audio in it.
        DamagedAudioError: if nothing of the audio can be decoded.
    """

    def __init__(self, file: BinaryIO, container: Container, allowance: DecodeBudget) -> None:
        av = library()
        if av is None:
            raise NotAudioError(_NEEDS_EXTRA.format(name=container.name))
        self.format = container.name
        self._promises = container.promises
        source = _Metered(file, allowance)
        self._file = _open(av, source, container)
        try:
            self._stream = self._choose()
            self._frames = self._decode()
            first = next(self._frames, None)
        except BaseException:
            self.close()
            raise
        if first is None:
            self.close()
            raise DamagedAudioError(
                f"Damaged: nothing of the audio in this {self.format} can be decoded; "
                "send the whole file."
            )
        source.in_header = False
        self._first = first
        # Of the frame: the header of HE-AAC says half of the rate.
        self.rate_hz: int = first.sample_rate
        self.num_channels: int = first.layout.nb_channels
        self.promised_frames = self._promised()

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield float32 blocks of shape ``(frames, channels)`` until the audio ends."""
        gathered = [_samples(self._first)]
        num_samples = gathered[0].size
        for frame in self._frames:
            if num_samples >= BLOCK_SAMPLES:
                yield np.concatenate(gathered)
                gathered, num_samples = [], 0
            gathered.append(_samples(frame))
            num_samples += gathered[-1].size
        yield np.concatenate(gathered)

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:  # noqa: ARG002
        """Say what is odd about the whole."""
        if self.promised_frames is not None:
            promised_s, read_s = (n / self.rate_hz for n in (self.promised_frames, num_frames))
            if abs(promised_s - read_s) > 1.0 + 0.05 * promised_s:
                yield f"The {self.format} promises {promised_s:.2f} s and holds {read_s:.2f} s."

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _choose(self) -> "AudioStream":
        """The first audio stream; the demuxer skips the others."""
        audio = self._file.streams.audio
        if not audio:
            raise NotAudioError(f"The {self.format} holds no audio; send one with a sound track.")
        chosen = audio[0]
        codec = chosen.codec_context.name if chosen.codec_context else "unknown"
        if codec not in _DECODERS.split(","):
            raise NotAudioError(
                f"{self.format} with audio of the kind {codec!r}, which we do not read; "
                "send WAV, FLAC, MP3, Ogg, or MP4 with AAC."
            )
        for stream in self._file.streams:
            if stream.index != chosen.index:
                stream.discard = stream.discard.all
        chosen.codec_context.thread_count = 1
        self._file.flags &= ~_GENERATE_TIMESTAMPS
        return chosen

    def _decode(self) -> Iterator["AudioFrame"]:
        """Yield the frames that hold samples."""
        num_packets, num_frames, rate = 0, 0, 0
        shape: tuple[int, int] | None = None
        try:
            for packet in self._file.demux(self._stream):
                num_packets += packet.size > 0
                if packet.is_corrupt:
                    raise broken_off(num_frames, None, rate or 1)
                for frame in packet.decode():
                    seen = frame.sample_rate, frame.layout.nb_channels
                    if seen != (shape := shape or seen):
                        raise _changes(shape, seen, num_frames / rate)
                    rate = frame.sample_rate
                    num_frames += frame.samples
                    if frame.samples:
                        yield frame
                if num_packets > _FREE_PACKETS + _PACKETS_PER_SECOND * num_frames / (rate or 1):
                    raise DamagedAudioError(
                        f"Damaged: {num_packets} packets hold {num_frames / (rate or 1):.2f} s of "
                        "audio; export the audio again."
                    )
        except DamagedAudioError:
            raise
        except Exception as error:  # FFmpeg's own, of many kinds; no text of theirs for users
            raise broken_off(num_frames, None, rate or 1) from error
        # A demuxer ends quietly where the file does; the index of an MP4 says what was to come.
        if self._file.format.name.startswith("mov") and (
            num_packets < len(self._stream.index_entries)
        ):
            raise broken_off(num_frames, None, rate or 1)

    def _promised(self) -> int | None:
        """Frames by the header; of the longest stream, where it says no more."""
        if not self._promises:
            return None
        if self._stream.duration and self._stream.time_base:
            duration_s = float(self._stream.duration * self._stream.time_base)
        else:
            duration_s = (self._file.duration or 0) / 1e6
        return round(duration_s * self.rate_hz) or None


@functools.cache
def library() -> ModuleType | None:
    """PyAV, silent and bounded; None where the extra is not installed."""
    try:
        import av
        import av._core
    except ImportError:
        return None
    av.logging.set_level(None)
    bound = ctypes.CDLL(av._core.__file__).av_max_alloc  # FFmpeg's, which PyAV does not hand on
    bound.argtypes, bound.restype = [ctypes.c_size_t], None
    bound(_MOST_BYTES_AT_ONCE)
    return av


def _open(av: ModuleType, source: Source, container: Container) -> "InputContainer":
    try:
        file: InputContainer = av.open(
            source,
            mode="r",
            format=container.demuxer,
            options=_OPTIONS,
            io_open=_refuse,
            timeout=_OPEN_TIMEOUT_S,
        )
    except Exception as error:  # as in MediaReader._decode
        raise NotAudioError(
            f"{container.name} that cannot be read: not whole, or damaged; send the whole file."
        ) from error
    return file


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:  # noqa: ARG001
    raise PermissionError("a recording may open no other file or address")


def _changes(before: tuple[int, int], now: tuple[int, int], at_s: float) -> DamagedAudioError:
    return DamagedAudioError(
        f"The audio changes from {before[0]} Hz in {before[1]} channels to {now[0]} Hz in "
        f"{now[1]} after {at_s:.1f} s; export it again with one rate and width."
    )


def _samples(frame: "AudioFrame") -> npt.NDArray[np.float32]:
    """The samples of a frame in [-1, 1], shape ``(frames, channels)``."""
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    half = 1 << (8 * samples.dtype.itemsize - 1)
    centre = half if samples.dtype.kind == "u" else 0
    return ((samples.astype(np.float64) - centre) / half).astype(np.float32)
