"""WS /stream: a microphone or one side of a phone call, an answer per turn."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, WebSocket
from pydantic_core import to_json
from starlette.websockets import WebSocketDisconnect

from ...inference.answer import Segment
from ...inference.errors import NnpmError
from ...inference.stream import Stream, open_stream
from ...predict.live import Hello, LiveAudio, check_end, no_hello, read_hello
from ...predict.predict import model_part
from ...predict.schemas import (
    DIGITS,
    AudioPart,
    PredictAnswer,
    TimingPart,
    rounded,
    rounded_segment,
)
from ...registry.serving import Route
from ..errors import NotReadyError, StreamIdleError, problem_of
from ..middleware.access import requires
from ..services import Services, services_of

router = APIRouter()
log = logging.getLogger("nnpm")

T = TypeVar("T")

_LEAST_S = 0.01
"""Audio that is worth a job."""

_LEAD_S = 5.0
"""A stream that is ahead of the clock by this is no microphone, and waits like any request."""

_CHUNK_BYTES = 1 << 17
"""Audio that is scored although no segment is due."""


class StalledError(Exception):
    """The client does not read."""


class Session:
    """One connection, from the hello to the answer.

    It reads, scores and sends in turn: while a window is scored nothing is read, so the network
    slows down a client that sends faster than that, and its audio fills no memory here.

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
        self._started_s = time.perf_counter()
        self._queue_s = self._busy_s = 0.0
        self._digits = DIGITS
        self.audio_s = 0.0
        self.num_segments = 0

    async def run(self) -> PredictAnswer:
        """Score the stream to its end.

        Raises:
            NnpmError: if a message or the audio is invalid.
            WebSocketDisconnect: if the client has left.
            StalledError: if the client does not read.
        """
        hello = await self._hello()
        self._digits = hello.digits
        route, audio = await self._job(lambda: self._begin(hello))
        with contextlib.closing(audio):
            return await self._listen(hello, route, audio)

    async def _listen(self, hello: Hello, route: Route, audio: LiveAudio) -> PredictAnswer:
        raw, scored, is_over = bytearray(), None, False
        while True:
            if scored is None and audio.rate_hz:
                scored = await self._job(lambda: self._open(hello, route, audio))
            if is_over:
                break
            message = await self._message()
            received_s = time.perf_counter()
            if (text := message.get("text")) is not None:
                check_end(text)
                audio.finish()
                is_over = True
            else:
                audio.push(message["bytes"])
            while piece := await self._job(audio.take) if audio.computes else audio.take():
                raw += piece
                if scored is None:
                    scored = await self._job(lambda: self._open(hello, route, audio))
                num_frames = len(raw) // (2 * audio.channels)
                due = max(scored.frames_needed, round(_LEAST_S * audio.rate_hz))
                if num_frames >= due or len(raw) >= _CHUNK_BYTES:
                    await self._score(scored, audio, raw, received_s)
        assert scored is not None
        await self._score(scored, audio, raw, received_s)
        answer = await self._job(lambda: self._finish(route, scored, audio))
        await self.send("final", answer.model_dump(exclude_unset=True))
        return answer

    async def send(self, kind: str, document: dict[str, Any]) -> None:
        """Send a message; each says in ``type`` what it is: segment, final or error.

        Raises:
            WebSocketDisconnect: if the client has left.
            StalledError: if the client does not read.
        """
        text = to_json({"type": kind, **document}).decode()
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
            raise no_hello()
        hello = read_hello(text)
        if not self._services.readiness.ready:
            raise NotReadyError(self._services.readiness.obstacle)
        return hello

    def _begin(self, hello: Hello) -> tuple[Route, LiveAudio]:
        services = self._services
        audio = hello.open(services.limits, self._settings.max_message_bytes)
        try:
            return services.serving.choose(language=hello.language), audio
        except BaseException:
            audio.close()
            raise

    def _open(self, hello: Hello, route: Route, audio: LiveAudio) -> Stream:
        return open_stream(
            route.recognizer,
            rate_hz=audio.rate_hz,
            channels=audio.channels,
            options=hello.options,
            limits=self._services.limits,
        )

    async def _score(
        self, recognizer: Stream, audio: LiveAudio, raw: bytearray, received_s: float
    ) -> None:
        """Score audio, and send every segment that it completes; one window is one job."""
        frames = np.frombuffer(bytes(raw), "<i2").reshape(-1, recognizer.info.channels)
        audio.check(raw)
        raw.clear()
        no_frames = frames[:0]
        segment: Segment | None = await self._job(lambda: recognizer.push(frames))
        while segment is not None:
            fields = asdict(rounded_segment(segment, self._digits))
            del fields["speaker"]  # nobody names one in a stream
            await self.send("segment", fields)
            self._services.streams.segment(time.perf_counter() - received_s)
            self.num_segments += 1
            segment = await self._job(lambda: recognizer.push(no_frames))
        self.audio_s = recognizer.info.duration_s

    def _finish(self, route: Route, recognizer: Stream, audio: LiveAudio) -> PredictAnswer:
        answer, info = recognizer.finish(), replace(recognizer.info, format=audio.format)
        route.recognizer.release_after(info.duration_s)
        card, model = route.recognizer.bundle.card, route.model
        self._services.traffic.count_live(
            model.name, model.version, route.language, answer, card.decision.out_of_domain
        )
        shown = rounded(answer, self._digits)
        return PredictAnswer.of(
            shown,
            calibrated=card.calibrated,
            top_k=None,
            neighbours=False,
            audio=AudioPart.of(info, shown.speech_ratio, self._digits),
            model=model_part(route),
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
            started_s = time.perf_counter()
            try:
                return work()
            finally:
                self._busy_s += time.perf_counter() - started_s

        lead_s = self.audio_s - (time.perf_counter() - self._started_s)
        return await self._services.pool.run_in_turn(timed, urgent=lead_s < _LEAD_S)

    async def _message(self) -> dict[str, Any]:
        """Wait for the next message that is not empty."""
        loop = asyncio.get_running_loop()
        idle_at = loop.time() + self._settings.stream_idle_s
        while True:
            try:
                async with asyncio.timeout_at(min(idle_at, self._over_at)):
                    message = await self._websocket.receive()
            except TimeoutError:
                raise self._idle(is_over=loop.time() >= self._over_at) from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1005, message.get("reason"))
            if message.get("text") is not None or message.get("bytes"):
                return dict(message)

    def _idle(self, *, is_over: bool) -> StreamIdleError:
        if is_over:
            return StreamIdleError(
                f"The stream was open for {self._longest_s:g} s, the longest time allowed, and "
                f"sent {self.audio_s:.1f} s of audio; open a new one."
            )
        return StreamIdleError(
            f"No message came for {self._settings.stream_idle_s:g} s; send audio as it is "
            "recorded, silence too."
        )


@router.websocket("/stream", dependencies=[Depends(requires("predict"))])
async def stream(websocket: WebSocket, services: Annotated[Services, Depends(services_of)]) -> None:
    """Recognise the emotion in a recording while it is being made."""
    await websocket.accept()
    session = Session(websocket, services)
    started_s = time.perf_counter()
    try:
        with services.streams.opened():
            services.answered(websocket, await session.run())
        end = "final"
        await _close(websocket, 1000)
    except WebSocketDisconnect:
        end = "left"
    except StalledError:  # it would not read an error either; the server cuts the connection
        end = "stalled"
    except Exception as error:
        end = await _send_error(session, websocket, services, error)
    services.streams.ended(end)
    facts = {
        "route": "/stream",
        "end": end,
        "duration_ms": round(1000 * (time.perf_counter() - started_s), 3),
        "audio_s": round(session.audio_s, 3),
        "segments": session.num_segments,
    }
    log.info("/stream %s, %.1f s of audio", end, session.audio_s, extra=facts)


async def _send_error(
    session: Session, websocket: WebSocket, services: Services, error: Exception
) -> str:
    """Send an error and close; return its code."""
    request_id = websocket.state.request_id
    if not isinstance(error, NnpmError):
        log.error("stream %s failed", request_id, exc_info=error)
    problem = problem_of(error, request_id)
    services.metrics.error(problem.code)
    with contextlib.suppress(WebSocketDisconnect, StalledError):
        await session.send("error", problem.model_dump(exclude={"type"}))
        await _close(websocket, _close_code(problem.status))
    return problem.code


async def _close(websocket: WebSocket, code: int) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.close(code)


def _close_code(status: int) -> int:
    """Find the code of RFC 6455 that closes a connection after an error."""
    match status:
        case 408 | 404:
            return 1008  # against the rules of this server
        case 413:
            return 1009  # too big
        case 422 | 415:
            return 1007  # inconsistent data
        case 501:
            return 1003  # a kind of data that is not accepted
        case 503:
            return 1013  # try again later
        case _:
            return 1011
