"""Reading through FFmpeg (PyAV): videos, phones, and codecs that libsndfile does not know.

PyAV comes with the extra ``media``. FFmpeg reads far more than a service should accept. So a file
is given only to the demuxer that its first bytes select and to the audio decoders on a list;
FFmpeg may open no other file or address, may allocate no block above a bound, and runs on the
calling thread.
"""

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import DamagedAudioError, NotAudioError
from .formats import Format
from .reader import BLOCK_SAMPLES, DecodeBudget, Source, shape_changed, stopped_early

if TYPE_CHECKING:
    from av import AudioCodecContext, AudioFrame, AudioStream
    from av.container import InputContainer


_DECODERS = (
    "aac,aac_latm,ac3,eac3,dca,alac,flac,opus,libopus,speex,libspeex,vorbis,"
    "amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,gsm,gsm_ms,ilbc,g722,g723_1,g726,g726le,g729,"
    "mp1,mp1float,mp2,mp2float,mp3,mp3float,mace3,mace6,qcelp,qdm2,qdmc,truespeech,"
    "wmalossless,wmapro,wmav1,wmav2,wmavoice,"
    "adpcm_ct,adpcm_g722,adpcm_g726,adpcm_g726le,adpcm_ima_oki,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,"
    "adpcm_yamaha,pcm_alaw,pcm_mulaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_s16be,pcm_s16le,"
    "pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,pcm_u8"
)

# FFmpeg's own decoders know no comfort noise, which phones send in pauses.
_WITH_COMFORT_NOISE = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}

# Enough for an index of 700,000 packets, four hours of AAC. FFmpeg allocates what a header asks
# for, and a header of 100 bytes may ask for 4 GB.
_MAX_ALLOCATION_BYTES = 1 << 24
_MAX_STREAMS = 32
_OPEN_TIMEOUT_S = 60.0

# Before the first sample: index, tags, cover image, and probing (5 MB), all kept in memory.
_MAX_HEADER_BYTES = 1 << 25

# A packet holds 2.5 ms at least, and often 20; a hostile file holds millions of empty ones.
_FREE_PACKETS = 10_000
_PACKETS_PER_SECOND = 1_000

_OPTIONS = {
    "codec_whitelist": _DECODERS,
    "protocol_whitelist": "none",
    "max_streams": str(_MAX_STREAMS),
    "threads": "1",
}

# The header says all; to look for more would hold back the first seconds.
_LIVE_OPTIONS = {**_OPTIONS, "probesize": "2048", "analyzeduration": "100000"}

_GENERATE_TIMESTAMPS = 0x0001  # AVFMT_FLAG_GENPTS: buffers packets for timestamps we do not use
_NEEDS_EXTRA = (
    "{name} needs the extra 'media', which is not installed on the server: "
    "pip install 'nnpm[media]'; or send {instead}."
)


class _HeaderLimitedSource(Source):
    """A source that seems to end when a header is longer than that of any honest file."""

    def __init__(
        self,
        file: BinaryIO,
        budget: DecodeBudget,
        *,
        start: int | None = None,
        end: int | None = None,
    ) -> None:
        super().__init__(file, budget, start=start, end=end)
        self.in_header = True
        self._left = _MAX_HEADER_BYTES

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        allowed = memoryview(buffer)[: self._left] if self.in_header else buffer
        num_bytes = super().readinto(allowed)
        self._left -= num_bytes
        return num_bytes


class _PipeSource(_HeaderLimitedSource):
    """A source that arrives while it is read."""

    def __init__(self, pipe: BinaryIO, budget: DecodeBudget) -> None:
        super().__init__(pipe, budget, start=0, end=sys.maxsize)

    def seekable(self) -> bool:
        return False

    def _fetch(self, offset: int, size: int) -> bytes:  # noqa: ARG002 - the next one
        return os.read(self._file.fileno(), size)


class MediaReader:
    """A :class:`~.reader.Reader` on PyAV: one audio stream of a file.

    Args:
        file: seekable.
        row: its format.
        budget: charged for what is read.
        track: number of the audio stream; by default the one that the file marks as default, or
            the first.
        codec: of the samples, as users read it, where the format alone does not tell that the
            extra is needed.
        live: the file is a pipe, and its audio is wanted as soon as it has arrived.

    Raises:
        NotAudioError: if PyAV is not installed, or the file has no audio of a known codec.
        DamagedAudioError: if no audio can be decoded.
    """

    def __init__(
        self,
        file: BinaryIO,
        row: Format,
        budget: DecodeBudget,
        *,
        track: int | None = None,
        codec: str | None = None,
        live: bool = False,
    ) -> None:
        av = load_av()
        if av is None:
            name = row.name if codec is None else f"{row.name} with {codec}"
            instead = "WAV, FLAC, MP3 or Ogg" if codec is None else "PCM, FLAC, MP3 or Ogg"
            raise NotAudioError(_NEEDS_EXTRA.format(name=name, instead=instead))
        self.format = row.name.partition(" ")[0]
        self._codec = codec
        self._states_duration = row.states_duration
        self._block_samples = 1 if live else BLOCK_SAMPLES
        source = _PipeSource(file, budget) if live else _HeaderLimitedSource(file, budget)
        self._file = _open(av, source, row, _LIVE_OPTIONS if live else _OPTIONS)
        try:
            self._stream = self._select_stream(track)
            self._decoder = _decoder(av, self._stream)
            self._frames = self._decode()
            first = next(self._frames, None)
        except BaseException:
            self.close()
            raise
        if first is None:
            self.close()
            raise DamagedAudioError(
                f"The file is damaged: no audio in this {self.format} can be decoded; "
                "send the whole file."
            )
        source.in_header = False
        self._first = first
        # Of the frame: the header of HE-AAC states half the rate.
        self.rate_hz: int = first.sample_rate
        self.num_channels: int = first.layout.nb_channels
        self.stated_frames = self._stated()

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the audio in blocks; see :meth:`.reader.Reader.blocks`."""
        gathered = [_samples(self._first)]
        num_samples = gathered[0].size
        for frame in self._frames:
            if num_samples >= self._block_samples:
                yield np.concatenate(gathered)
                gathered, num_samples = [], 0
            gathered.append(_samples(frame))
            num_samples += gathered[-1].size
        yield np.concatenate(gathered)

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:  # noqa: ARG002
        """Yield sentences for the user; see :meth:`.reader.Reader.warnings`."""
        if self.num_tracks > 1:
            yield (
                f"The {self.format} has {self.num_tracks} sound tracks; number {self.track + 1} "
                "was read."
            )
        if self.stated_frames is not None:
            stated_s, read_s = (n / self.rate_hz for n in (self.stated_frames, num_frames))
            if abs(stated_s - read_s) > 1.0 + 0.05 * stated_s:
                yield (
                    f"The header of the {self.format} states {stated_s:.2f} s; "
                    f"it holds {read_s:.2f} s."
                )

    def close(self) -> None:
        """Release FFmpeg's handle; the file stays open."""
        self._file.close()

    def _select_stream(self, track: int | None) -> "AudioStream":
        """Select an audio stream; the demuxer skips the others."""
        audio = self._file.streams.audio
        if not audio:
            raise NotAudioError(f"The {self.format} holds no audio; send one with a sound track.")
        self.num_tracks = len(audio)
        if track is None:
            marked = [n for n, one in enumerate(audio) if one.disposition & one.disposition.default]
            track = marked[0] if marked else 0
        self.track = track
        selected = audio[track]
        codec = selected.codec_context.name if selected.codec_context else "unknown"
        if codec not in _DECODERS.split(","):
            if codec == "unknown" and self._codec is not None:
                codec = self._codec
            raise NotAudioError(
                f"The audio in this {self.format} is encoded as {codec!r}, which is not supported; "
                "send WAV, FLAC, MP3, Ogg, or MP4 with AAC."
            )
        for stream in self._file.streams:
            if stream.index != selected.index:
                stream.discard = stream.discard.all
        selected.codec_context.thread_count = 1
        self._file.flags &= ~_GENERATE_TIMESTAMPS
        return selected

    def _decode(self) -> Iterator["AudioFrame"]:
        """Yield the frames that hold samples."""
        num_packets, num_frames, rate = 0, 0, 0
        shape: tuple[int, int] | None = None
        try:
            for packet in self._file.demux(self._stream):
                num_packets += packet.size > 0
                if packet.is_corrupt:
                    raise stopped_early(num_frames, None, rate or 1)
                for frame in self._decoder.decode(packet):
                    seen = frame.sample_rate, frame.layout.nb_channels
                    if seen != (shape := shape or seen):
                        raise shape_changed(shape, seen, num_frames / rate)
                    rate = frame.sample_rate
                    num_frames += frame.samples
                    if frame.samples:
                        yield frame
                if num_packets > _FREE_PACKETS + _PACKETS_PER_SECOND * num_frames / (rate or 1):
                    raise DamagedAudioError(
                        f"The file is damaged: {num_packets} packets hold "
                        f"{num_frames / (rate or 1):.2f} s of audio; export the audio again."
                    )
        except DamagedAudioError:
            raise
        except Exception as error:  # FFmpeg has many types; users never see their text
            raise stopped_early(num_frames, None, rate or 1) from error
        # A demuxer reports no error where a cut file ends; the index of an MP4 lists all packets.
        if self._file.format.name.startswith("mov") and (
            num_packets < len(self._stream.index_entries)
        ):
            raise stopped_early(num_frames, None, rate or 1)

    def _stated(self) -> int | None:
        """Frames that the header states; of the longest stream, if it states no more."""
        if not self._states_duration:
            return None
        if self._stream.duration and self._stream.time_base:
            duration_s = float(self._stream.duration * self._stream.time_base)
        else:
            duration_s = (self._file.duration or 0) / 1e6
        return round(duration_s * self.rate_hz) or None


@functools.cache
def load_av() -> ModuleType | None:
    """Import PyAV, silence it and bound its allocations; None if it is not installed."""
    try:
        import av
        import av._core
    except ImportError:
        return None
    av.logging.set_level(None)
    bound = ctypes.CDLL(av._core.__file__).av_max_alloc  # FFmpeg's, which PyAV does not expose
    bound.argtypes, bound.restype = [ctypes.c_size_t], None
    bound(_MAX_ALLOCATION_BYTES)
    return av


def _open(av: ModuleType, source: Source, row: Format, options: dict[str, str]) -> "InputContainer":
    try:
        file: InputContainer = av.open(
            source,
            mode="r",
            format=row.demuxer,
            options=options,
            io_open=_refuse_to_open,
            timeout=_OPEN_TIMEOUT_S,
        )
    except Exception as error:  # as in MediaReader._decode
        raise NotAudioError(
            f"This {row.name} cannot be read: it is incomplete or damaged; send the whole file."
        ) from error
    return file


def _decoder(av: ModuleType, stream: "AudioStream") -> "AudioCodecContext":
    """What decodes a stream: its own decoder, or a better one where this build has it."""
    own: AudioCodecContext = stream.codec_context
    name = _WITH_COMFORT_NOISE.get(own.name)
    if name is None or name not in av.codecs_available:
        return own
    better: AudioCodecContext = av.CodecContext.create(name, "r")
    better.sample_rate, better.layout = own.sample_rate, own.layout
    return better


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:  # noqa: ARG001
    raise PermissionError("a recording may open no other file or address")


def _samples(frame: "AudioFrame") -> npt.NDArray[np.float32]:
    """The samples of a frame in [-1, 1], float32, shape ``(num_frames, num_channels)``."""
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    half = 1 << (8 * samples.dtype.itemsize - 1)
    centre = half if samples.dtype.kind == "u" else 0
    return ((samples.astype(np.float64) - centre) / half).astype(np.float32)
