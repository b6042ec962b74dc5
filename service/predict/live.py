"""What comes on a live stream: its first message, and PCM or WebM as 16-bit frames."""

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from ..inference.answer import Options, Segmentation
from ..inference.audio.decode import check_shape
from ..inference.audio.formats import FORMATS
from ..inference.audio.process import RemoteStream
from ..inference.audio.waveform import Limits
from ..inference.errors import (
    AudioTooShortError,
    ExtraMissingError,
    NnpmError,
    ParameterError,
    validation_detail,
)
from .predict import HopSeconds, LanguageTag, WindowSeconds, require_hop_within
from .schemas import DIGITS, Digits

_HOW = 'send {"sample_rate_hz": 16000, "channels": 1} as text, then 16-bit samples, then an end'
_WEBM = [row.name for row in FORMATS].index("WEBM")
_EBML = b"\x1a\x45\xdf\xa3"
_TAKEN_BYTES = 1 << 20


class StreamMessageError(NnpmError):
    """An invalid message on a stream: no hello, text among the audio, half a sample."""

    status, code, detail = 422, "bad_message", None
    title = "Invalid stream message"


class Hello(BaseModel):
    """The first message: the format of the audio, and how to score it."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid")

    language: LanguageTag = None
    """BCP-47, as for /predict."""

    window_s: WindowSeconds | None = None
    """Seconds per window; the bundle's own length by default."""

    hop_s: HopSeconds | None = None
    """Seconds from one segment to the next, at most ``window_s``; the bundle's own by default."""

    segments: Segmentation | None = None
    """``turns``: a segment when a turn ends; ``windows``: one per hop. By default turns, unless
    ``window_s`` or ``hop_s`` is given."""

    digits: Digits = DIGITS
    """Digits of scores, as for /predict."""

    @model_validator(mode="after")
    def _hop_fits_window(self) -> Self:
        require_hop_within(self.window_s, self.hop_s)
        return self

    @property
    def options(self) -> Options:
        """The same as options of the recognizer."""
        return Options(window_s=self.window_s, hop_s=self.hop_s, segments=self.segments)

    def open(self, limits: Limits, max_bytes: int) -> "LiveAudio":
        """Begin to take the audio.

        Args:
            limits: of channels and sample rate.
            max_bytes: of one message.

        Raises:
            ParameterError: if there are too many channels.
            ExtraMissingError: if the format needs a package that is not installed.
            DecoderUnavailableError: if the process that decodes cannot be started.
        """
        raise NotImplementedError


class PcmHello(Hello):
    """The first message of a stream of 16-bit little-endian samples."""

    format: Literal["pcm"] = "pcm"
    """16-bit little-endian samples; frame by frame, where there are several channels."""

    sample_rate_hz: Annotated[StrictInt, Field(ge=8000, le=48_000)]
    """Of the audio that follows."""

    channels: Annotated[StrictInt, Field(ge=1)]
    """Interleaved in the audio; their mean is scored."""

    def open(self, limits: Limits, max_bytes: int) -> "LiveAudio":
        """Begin to take the audio."""
        if self.channels > limits.max_channels:
            raise ParameterError(
                f"channels is {self.channels}; it must be between 1 and {limits.max_channels}."
            )
        return PcmAudio(self.sample_rate_hz, self.channels, max_bytes)


class WebmHello(Hello):
    """The first message of a stream of WebM, as a browser's MediaRecorder makes it."""

    format: Literal["webm"]
    """WebM with Opus, piece by piece from its header on, which says rate and channels."""

    def open(self, limits: Limits, max_bytes: int) -> "LiveAudio":
        """Begin to take the audio."""
        if importlib.util.find_spec("av") is None:
            raise ExtraMissingError(
                "WebM on a stream needs the extra 'media', which is not installed on the server: "
                "pip install 'nnpm[media]'; or send 16-bit samples."
            )
        return WebmAudio(limits, max_bytes)


def read_hello(text: str) -> PcmHello | WebmHello:
    """Read a first message.

    Raises:
        StreamMessageError: if it is not a JSON object.
        ParameterError: one sentence for each field that cannot be used.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise StreamMessageError(f"The first message is not a JSON object; {_HOW}.")
    kind = document.get("format", "pcm")
    if kind not in ("pcm", "webm"):
        raise ParameterError(f"format is {str(kind)[:64]!r}; it must be pcm or webm.")
    try:
        return (WebmHello if kind == "webm" else PcmHello).model_validate_json(text)
    except ValidationError as error:
        raise ParameterError(validation_detail(error.errors())) from None


def no_hello() -> StreamMessageError:
    """Make the error for audio before the first message."""
    return StreamMessageError(f"The first message is audio; {_HOW}.")


class End(BaseModel):
    """The last message."""

    model_config = ConfigDict(extra="forbid")

    end: Literal[True]


def check_end(text: str) -> None:
    """Check that a text among the audio is the end.

    Raises:
        StreamMessageError: if it is not.
    """
    try:
        End.model_validate_json(text)
    except ValidationError:
        raise StreamMessageError(
            'A text message other than {"end": true} came among the audio; send samples as binary '
            "messages."
        ) from None


class LiveAudio(ABC):
    """The audio of one stream; calls come one after the other, from any thread.

    Attributes:
        format: as answers name it.
        computes: whether :meth:`take` takes its time.
        rate_hz: 0 until it is known.
        channels: 0 until they are known.
    """

    format: str
    computes: bool
    rate_hz = 0
    channels = 0

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def push(self, data: bytes) -> None:
        """Take a message, whose frames ``take`` gives then.

        Raises:
            StreamMessageError: if it cannot be audio of this format, or has too many bytes.
        """
        if len(data) > self._max_bytes:
            raise StreamMessageError(
                f"The message has {len(data)} bytes; at most {self._max_bytes} are accepted: send "
                "smaller messages."
            )

    @abstractmethod
    def take(self) -> bytes:
        """Give whole frames of 16-bit little-endian samples; none if more has to arrive.

        Raises:
            AudioError: if the audio cannot be decoded.
        """

    @abstractmethod
    def finish(self) -> None:
        """Note that the last message has come.

        Raises:
            AudioTooShortError: if none has.
        """

    @abstractmethod
    def check(self, frames: bytes | bytearray) -> None:
        """Look at some frames before they are scored.

        Raises:
            StreamMessageError: if they cannot be of this format.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what is held."""


class PcmAudio(LiveAudio):
    """16-bit samples, which need no decoding.

    Args:
        rate_hz: sample rate.
        channels: interleaved.
        max_bytes: of one message.
    """

    format, computes = "PCM", False

    def __init__(self, rate_hz: int, channels: int, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.rate_hz, self.channels = rate_hz, channels
        self._data = b""

    def push(self, data: bytes) -> None:
        """Take a message of whole frames."""
        super().push(data)
        frame_bytes = 2 * self.channels
        if len(data) % frame_bytes:
            raise StreamMessageError(
                f"The message has {len(data)} bytes; it must be a multiple of {frame_bytes}: "
                f"16-bit samples of {self.channels} channel{'s' if self.channels > 1 else ''}."
            )
        self._data = data

    def take(self) -> bytes:
        """Give the frames of the message."""
        data, self._data = self._data, b""
        return data

    def finish(self) -> None:
        """Do nothing: all is taken."""

    def close(self) -> None:
        """Do nothing: no process decodes it."""

    def check(self, frames: bytes | bytearray) -> None:
        """Check that samples are not floats: these, read as integers, are loud noise."""
        floats = np.abs(np.frombuffer(frames, "<f4", len(frames) // 4))
        floats = floats[floats != 0]
        if len(floats) >= _JUDGED_FLOATS and np.mean((floats > 1e-7) & (floats <= 2)) > 0.98:
            raise StreamMessageError(
                "The samples look like 32-bit floats; send 16-bit little-endian integers, that is "
                "each float times 32767."
            )


_JUDGED_FLOATS = 1_000
"""Of 16-bit sound, one pair of samples in ten at most looks like a float of [-2, 2]."""


class WebmAudio(LiveAudio):
    """WebM, decoded in a process of its own.

    Args:
        limits: of channels and sample rate.
        max_bytes: of one message.

    Raises:
        DecoderUnavailableError: if the process cannot be started.
    """

    format, computes = "WEBM", True

    def __init__(self, limits: Limits, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._limits = limits
        self._head = b""
        self._decoder = RemoteStream(_WEBM)
        self._blocks: Iterator[npt.NDArray[np.float32]] = iter(())

    def push(self, data: bytes) -> None:
        """Take the next piece."""
        super().push(data)
        if len(self._head) < len(_EBML):
            self._head += data[: len(_EBML)]
            if not _EBML.startswith(self._head[: len(_EBML)]):
                raise StreamMessageError(
                    "The first piece does not begin with the header of WebM; send all pieces of "
                    "one MediaRecorder with the mimeType audio/webm;codecs=opus, the first too."
                )
        self._blocks = self._decoder.push(data)

    def take(self) -> bytes:
        """Give the frames that are decoded by now, up to some seconds of them."""
        taken = bytearray()
        for block in self._blocks:
            if not self.rate_hz:
                rate_hz, channels = self._decoder.rate_hz, self._decoder.num_channels
                check_shape(rate_hz, channels, self._limits)
                self.rate_hz, self.channels = rate_hz, channels
            taken += np.clip(np.rint(block * 32767), -32768, 32767).astype("<i2").tobytes()
            if len(taken) >= _TAKEN_BYTES:
                break
        return bytes(taken)

    def check(self, frames: bytes | bytearray) -> None:
        """Do nothing: they were decoded here."""

    def finish(self) -> None:
        """Let the rest be taken: the last piece has come."""
        if not self._head:
            raise AudioTooShortError("The stream is empty; send the pieces of a WebM, then an end.")
        self._blocks = self._decoder.blocks()

    def close(self) -> None:
        """End the process."""
        self._decoder.close()
