"""One stream, from the hello to the answer."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.api.errors import NotReadyError, StreamIdleError
from service.api.schemas import AudioPart, PredictAnswer, TimingPart
from service.api.scoring import model_part
from service.api.services import Services
from service.api.stream.messages import (
    Hello,
    check_audio,
    check_end,
    final_text,
    first_is_audio,
    segment_text,
)
from service.inference.answer import Segment
from service.inference.stream import Listener
from service.registry.serving import Chosen

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
            wanted = max(listener.frames_wanted, round(_LEAST_S * rate))
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

    def _begin(self, hello: Hello) -> tuple[Chosen, Listener]:
        chosen = self._services.serving.choose(language=hello.language)
        listener = Listener(
            chosen.recognizer,
            rate_hz=hello.sample_rate_hz,
            channels=hello.channels,
            options=hello.options,
            limits=self._settings.limits,
        )
        return chosen, listener

    async def _hear(self, listener: Listener, raw: bytearray, received_at: float) -> None:
        """Hand audio on, and send every segment that it completes; one window is one job."""
        channels = listener.info.channels
        frames = np.frombuffer(bytes(raw), "<i2").reshape(-1, channels)
        raw.clear()
        nothing = frames[:0]
        segment: Segment | None = await self._job(lambda: listener.hear(frames))
        while segment is not None:
            await self.send(segment_text(segment))
            self._services.streams.segment(time.perf_counter() - received_at)
            self.num_segments += 1
            segment = await self._job(lambda: listener.hear(nothing))
        self.audio_s = listener.info.duration_s

    def _finish(self, chosen: Chosen, listener: Listener) -> PredictAnswer:
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
