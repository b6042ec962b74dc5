"""The upload limit: bytes are counted as they come, before anything parses or stores them.

An answer that comes before the end of the upload still has to reach its client.

How long an upload may take: a client that sends nothing, or next to nothing, is given up.
"""

import asyncio
import contextlib
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import TooSlowError, UploadTooLargeError

TAKES_AUDIO = ("/predict", "/adapt", "/v2/")
"""Paths whose bodies are uploads; all other bodies are a few fields of JSON."""

MAX_SMALL_BYTES = 64 * 1024
"""Of a body that is no upload."""


class UploadLimit:
    """Refuses bodies over a limit, whether their length is announced or not (chunked).

    Args:
        app: the application inside.
        max_bytes: of one upload.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let whoever reads the body meet the error: at once if the length was announced."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        takes_audio = scope["path"].startswith(TAKES_AUDIO)
        max_bytes = self._max_bytes if takes_audio else min(MAX_SMALL_BYTES, self._max_bytes)
        announced = Headers(scope=scope).get("content-length", "")
        num_announced = int(announced) if announced.isdecimal() else 0
        received = 0

        async def counted() -> Message:
            nonlocal received
            if num_announced > max_bytes:
                raise _error(num_announced, max_bytes, takes_audio)
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise _error(received, max_bytes, takes_audio)
            return message

        await self._app(scope, counted, send)


def _error(num_bytes: int, max_bytes: int, takes_audio: bool) -> UploadTooLargeError:
    how = "compress the audio (FLAC, Opus) or cut it into parts" if takes_audio else "send fewer"
    return UploadTooLargeError(
        f"{num_bytes} bytes or more; at most {max_bytes} are accepted: {how}."
    )


LINGER_S = 10.0


class DrainRequestBody:
    """Answers at once, then reads and drops the rest of the body before the answer ends.

    A connection that is closed while its client still sends is reset, and most clients then
    report the reset instead of the answer: a refusal would never be seen. A client that waits for
    "100 Continue" has sent nothing yet, and one that was too slow (408) is not waited for.

    Args:
        app: the application inside.
        seconds: to wait for the rest at most.
    """

    def __init__(self, app: ASGIApp, seconds: float = LINGER_S) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and drop what is left of its body once the answer is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        complete, waits = True, False
        for name, value in scope["headers"]:
            if name in (b"content-length", b"transfer-encoding"):
                complete = False
            elif name == b"expect":
                waits = value.lower() == b"100-continue"

        async def watched() -> Message:
            nonlocal complete, waits
            waits = False  # asking for the body sends "100 Continue"
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def late(message: Message) -> None:
            nonlocal waits
            if message["type"] == "http.response.start":
                waits = waits or message["status"] == 408
            elif not (complete or waits or message.get("more_body", False)):
                await send({**message, "more_body": True})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds):
                        while not complete:
                            await watched()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, watched, late)


class BodyTimeout:
    """Ends uploads that stall or trickle; whoever reads the body meets the error.

    Only time spent waiting for the client counts.

    Args:
        app: the application inside.
        idle_s: without a byte.
        min_bytes_per_s: on average, once ``idle_s`` were spent waiting in all; 0 for any.
    """

    def __init__(self, app: ASGIApp, idle_s: float, min_bytes_per_s: int) -> None:
        self._app = app
        self._idle_s = idle_s
        self._min_bytes_per_s = min_bytes_per_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        complete, received, waited_s = False, 0, 0.0

        async def patient() -> Message:
            nonlocal complete, received, waited_s
            if complete:  # what comes now is the end of the connection
                return await receive()
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await receive()
            except TimeoutError:
                raise TooSlowError(
                    f"{received} bytes of the body came, then none for {self._idle_s:g} s; send it "
                    "without such pauses.",
                    Connection="close",
                ) from None
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            waited_s += time.perf_counter() - started
            if (
                not complete
                and waited_s > self._idle_s
                and received < waited_s * self._min_bytes_per_s
            ):
                raise TooSlowError(
                    f"{received} bytes of the body came in {waited_s:.0f} s; at least "
                    f"{self._min_bytes_per_s} bytes a second are wanted.",
                    Connection="close",
                )
            return message

        await self._app(scope, patient, send)
