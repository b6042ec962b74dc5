"""The streams that are open: how many there may be, and what they have given.

What is said on a stream, besides audio.

One stream, from the hello to the answer.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..inference.answer import Options, Segment
from ..inference.errors import ParameterError
from ..inference.stream import StreamRecognizer
from ..predict.predict import HopSeconds, WindowSeconds, model_part, require_hop_within
from ..predict.schemas import AudioPart, PredictAnswer, TimingPart
from ..registry.serving import Route
from .errors import NotReadyError, Problem, StreamIdleError, StreamMessageError
from .services import Services

_HOW = 'send {"sample_rate_hz": 16000, "channels": 1} as text, then 16-bit samples, then an end'


class Hello(BaseModel):
    """The first message: what will come, and how it is to be scored."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid")

    sample_rate_hz: Annotated[StrictInt, Field(ge=8000, le=48_000)]
    """Of the samples that will come."""

    channels: Annotated[StrictInt, Field(ge=1)]
    """Interleaved in them; their mean is scored."""

    language: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")
    """BCP-47; as for /predict."""

    window_s: WindowSeconds | None = None
    """Seconds per window; the bundle's own otherwise."""

    hop_s: HopSeconds | None = None
    """Seconds from one segment to the next, at most ``window_s``; the bundle's own otherwise."""

    @model_validator(mode="after")
    def _hop_fits_window(self) -> Self:
        require_hop_within(self.window_s, self.hop_s)
        return self

    @property
    def options(self) -> Options:
        """The same in the words of the recognizer."""
        return Options(window_s=self.window_s, hop_s=self.hop_s)

    @classmethod
    def read(cls, text: str, max_channels: int) -> "Hello":
        """Read a first message.

        Raises:
            StreamMessageError: if it is no JSON object.
            ParameterError: one sentence for each field that cannot be used.
        """
        try:
            hello = cls.model_validate_json(text)
        except ValidationError as error:
            found = error.errors()
            if found[0]["type"] in ("json_invalid", "model_type"):
                raise StreamMessageError(f"The first message is no JSON object; {_HOW}.") from None
            raise ParameterError("; ".join(map(_sentence, found[:8]))) from None
        if hello.channels > max_channels:
            raise ParameterError(f"channels is {hello.channels}; 1 to {max_channels} is wanted.")
        return hello


class _End(BaseModel):
    model_config = ConfigDict(extra="forbid")

    end: Literal[True]


def check_end(text: str) -> None:
    """See that a text among audio is the end.

    Raises:
        StreamMessageError: if it is something else.
    """
    try:
        _End.model_validate_json(text)
    except ValidationError:
        raise StreamMessageError(
            'A text that is not {"end": true} came among the audio; samples are binary messages.'
        ) from None


def check_audio(num_bytes: int, channels: int, max_bytes: int) -> None:
    """See that a binary message holds whole frames, and not too many.

    Raises:
        StreamMessageError: otherwise.
    """
    frame_bytes = 2 * channels
    if num_bytes > max_bytes:
        raise StreamMessageError(
            f"A message of {num_bytes} bytes; at most {max_bytes} are accepted: send smaller ones."
        )
    if num_bytes % frame_bytes:
        raise StreamMessageError(
            f"A message of {num_bytes} bytes; a multiple of {frame_bytes} is wanted, "
            f"16-bit samples of {channels} channel{'s' if channels > 1 else ''}."
        )


def first_is_audio() -> StreamMessageError:
    """Make the error of a stream without a hello."""
    return StreamMessageError(f"The first message is audio; {_HOW}.")


_SEGMENT = TypeAdapter(Segment)


def segment_text(segment: Segment) -> str:
    """Write a segment."""
    return _typed("segment", _SEGMENT.dump_json(segment).decode())


def final_text(answer: PredictAnswer) -> str:
    """Write the answer."""
    return _typed("final", answer.to_json())


def error_text(problem: Problem) -> str:
    """Write an error: a problem whose ``type`` says, as in each message, what message it is."""
    return _typed("error", problem.model_dump_json(exclude={"type"}))


def close_code(status: int) -> int:
    """Find the code of RFC 6455 that a connection is closed with after an error."""
    match status:
        case 408 | 404:
            return 1008  # against the rules of this server
        case 413:
            return 1009  # too big
        case 422 | 415:
            return 1007  # not what it should be
        case 503:
            return 1013  # come again later
        case _:
            return 1011


def _typed(kind: str, document: str) -> str:
    return f'{{"type":"{kind}",{document[1:]}'


def _sentence(error: Any) -> str:
    message = str(error["msg"])
    if error["type"] == "value_error":  # of ours: a sentence already
        return message.removeprefix("Value error, ")
    name = ".".join(str(part) for part in error["loc"])[:64]
    if error["type"] == "extra_forbidden":
        return f"{name} is no field that we know."
    if error["type"] == "missing":
        return f"{name} is missing."
    return f"{name}: {message[:1].lower()}{message[1:]}, not {str(error['input'])[:64]!r}."


T = TypeVar("T")

_LEAST_S = 0.01
"""Audio that is worth a job."""

_LEAD_S = 5.0
"""Ahead of the clock by this, a stream is no microphone, and waits like any request."""

_CHUNK_BYTES = 1 << 17
"""Audio that is handed on although no segment is due."""


class StalledError(Exception):
    """The client does not read."""


class Session:
    """Hears one connection.

    It reads, scores and sends in turn: while a window is scored nothing is read, so a client that
    sends faster than that is held up by the network, and holds nothing here.

    Args:
        websocket: accepted.
        services: of the app.
    """

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        self._websocket = websocket
        self._services = services
        self._settings = services.settings
        # Audio may come slowly, but not for ever.
        self._longest_s = self._settings.max_duration_s + self._settings.stream_idle_s
        self._over_at = asyncio.get_running_loop().time() + self._longest_s
        self._began = time.perf_counter()
        self._queue_s = self._busy_s = 0.0
        self.audio_s = 0.0
        self.num_segments = 0

    async def run(self) -> PredictAnswer:
        """Score the stream to its end.

        Raises:
            NnpmError: whatever is wrong with what came.
            WebSocketDisconnect: if the client has left.
            StalledError: if it does not read.
        """
        hello = await self._hello()
        chosen, listener = await self._job(lambda: self._begin(hello))
        raw = bytearray()
        while True:
            message = await self._message()
            received_at = time.perf_counter()
            if (text := message.get("text")) is not None:
                check_end(text)
                break
            raw += message["bytes"]
            rate, num_frames = hello.sample_rate_hz, len(raw) // (2 * hello.channels)
            check_audio(len(message["bytes"]), hello.channels, self._settings.max_message_bytes)
            wanted = max(listener.frames_needed, round(_LEAST_S * rate))
            if num_frames >= wanted or len(raw) >= _CHUNK_BYTES:
                await self._hear(listener, raw, received_at)
        await self._hear(listener, raw, received_at)
        answer = await self._job(lambda: self._finish(chosen, listener))
        await self.send(final_text(answer))
        return answer

    async def send(self, text: str) -> None:
        """Send a text.

        Raises:
            WebSocketDisconnect: if the client has left.
            StalledError: if it does not read.
        """
        try:
            async with asyncio.timeout(self._settings.stream_stall_s):
                await self._websocket.send_text(text)
        except TimeoutError:
            raise StalledError from None
        except RuntimeError:  # the server has closed the connection: no pong, a bad frame
            raise WebSocketDisconnect(1006) from None

    async def _hello(self) -> Hello:
        message = await self._message()
        if (text := message.get("text")) is None:
            raise first_is_audio()
        hello = Hello.read(text, self._settings.max_channels)
        if not self._services.readiness.ready:
            raise NotReadyError(self._services.readiness.obstacle)
        return hello

    def _begin(self, hello: Hello) -> tuple[Route, StreamRecognizer]:
        chosen = self._services.serving.choose(language=hello.language)
        listener = StreamRecognizer(
            chosen.recognizer,
            rate_hz=hello.sample_rate_hz,
            channels=hello.channels,
            options=hello.options,
            limits=self._settings.limits,
        )
        return chosen, listener

    async def _hear(self, listener: StreamRecognizer, raw: bytearray, received_at: float) -> None:
        """Hand audio on, and send every segment that it completes; one window is one job."""
        channels = listener.info.channels
        frames = np.frombuffer(bytes(raw), "<i2").reshape(-1, channels)
        raw.clear()
        nothing = frames[:0]
        segment: Segment | None = await self._job(lambda: listener.push(frames))
        while segment is not None:
            await self.send(segment_text(segment))
            self._services.streams.segment(time.perf_counter() - received_at)
            self.num_segments += 1
            segment = await self._job(lambda: listener.push(nothing))
        self.audio_s = listener.info.duration_s

    def _finish(self, chosen: Route, listener: StreamRecognizer) -> PredictAnswer:
        answer, info = listener.finish(), listener.info
        limit = chosen.recognizer.bundle.card.decision.out_of_domain
        model = chosen.model
        self._services.traffic.live(model.name, model.version, chosen.language, answer, limit)
        return PredictAnswer.of(
            answer,
            calibrated=chosen.recognizer.bundle.card.calibrated,
            top_k=None,
            neighbours=False,
            audio=AudioPart.of(info, answer.speech_ratio),
            model=model_part(chosen),
            request_id=self._websocket.state.request_id,
            timing_ms=self._timing(),
        )

    def _timing(self) -> TimingPart:
        queue_ms, busy_ms = round(1000 * self._queue_s, 3), round(1000 * self._busy_s, 3)
        return TimingPart(
            queue=queue_ms, decode=0.0, inference=busy_ms, total=round(queue_ms + busy_ms, 3)
        )

    async def _job(self, work: Callable[[], T]) -> T:
        def timed(queue_s: float) -> T:
            self._queue_s += queue_s
            started = time.perf_counter()
            try:
                return work()
            finally:
                self._busy_s += time.perf_counter() - started

        lead_s = self.audio_s - (time.perf_counter() - self._began)
        return await self._services.executor.run_in_turn(timed, urgent=lead_s < _LEAD_S)

    async def _message(self) -> dict[str, Any]:
        """Wait for the next message that holds something."""
        loop = asyncio.get_running_loop()
        idle_at = loop.time() + self._settings.stream_idle_s
        while True:
            try:
                async with asyncio.timeout_at(min(idle_at, self._over_at)):
                    message = await self._websocket.receive()
            except TimeoutError:
                raise self._idle(loop.time() >= self._over_at) from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1005, message.get("reason"))
            if message.get("text") is not None or message.get("bytes"):
                return dict(message)

    def _idle(self, is_over: bool) -> StreamIdleError:
        if is_over:
            return StreamIdleError(
                f"The stream was open for {self._longest_s:g} s, and {self.audio_s:.1f} s of audio "
                "came; no stream is open for longer."
            )
        return StreamIdleError(
            f"Nothing came for {self._settings.stream_idle_s:g} s; send audio as it is made, "
            "silence too."
        )
