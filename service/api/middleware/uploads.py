"""Limits of request bodies: encoding, size, how slowly they may come; what follows an early answer.

All of them wrap ``receive``, so bytes are counted as they come, before anything parses or stores
them. A client over a limit gets its error from the route that reads the body.
"""

import asyncio
import contextlib
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import BodyEncodingError, TooSlowError, UploadTooLargeError

UPLOAD_PATHS = ("/predict", "/adapt", "/v2/")
"""Paths whose bodies are uploads; all other bodies are a few fields of JSON."""

MAX_SMALL_BYTES = 64 * 1024
"""Largest body of all other paths."""


def takes_uploads(path: str) -> bool:
    """Whether a path takes recordings.

    Examples:
        >>> takes_uploads("/models/default/1/evaluate"), takes_uploads("/models/default/promote")
        (True, False)
    """
    evaluates = path.startswith("/models/") and path.endswith("/evaluate")
    return evaluates or path.startswith(UPLOAD_PATHS)


DRAIN_S = 10.0


class UploadLimits:
    """Refuses bodies that are too large or too slow, and lets early answers reach their client.

    A connection that is closed while its client still sends is reset, and most clients then report
    the reset instead of the answer: a refusal would never be seen. So an answer that comes before
    the end of the body is sent at once, and then the rest of the body is read and dropped before
    the answer ends. A client that waits for "100 Continue" has sent nothing yet, and one that was
    too slow (408) is not waited for.

    It stands outside of whatever refuses requests, so that those refusals are seen, too. It raises
    only to whoever reads the body: a request that is refused without reading meets no limit.

    Args:
        app: the application inside.
        max_bytes: of one upload.
        idle_s: seconds without a byte after which an upload is given up.
        min_bytes_per_s: on average, once ``idle_s`` were spent waiting in all; 0 for any. Only
            time spent waiting for the client counts.
        drain_s: seconds to wait for the rest of a body after an early answer, at most.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        idle_s: float,
        min_bytes_per_s: int,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._min_bytes_per_s = min_bytes_per_s
        self._drain_s = drain_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = takes_uploads(scope["path"])
        max_bytes = self._max_bytes if is_upload else min(MAX_SMALL_BYTES, self._max_bytes)
        pending, ended = False, False  # more may come; the last of the body has come
        awaits_continue, num_announced, encoding = False, 0, "identity"
        for name, value in scope["headers"]:
            if name == b"content-length":
                pending, num_announced = True, int(value) if value.isdigit() else 0
            elif name == b"transfer-encoding":
                pending = True
            elif name == b"content-encoding":
                encoding = value.decode("latin-1").strip().lower()
            elif name == b"expect":
                awaits_continue = value.lower() == b"100-continue"
        received, waited_s = 0, 0.0

        async def next_message() -> Message:
            nonlocal pending, ended, awaits_continue
            awaits_continue = False  # asking for the body sends "100 Continue"
            message = await receive()
            pending = message.get("more_body", False)
            ended = not pending
            return message

        async def limited_receive() -> Message:
            nonlocal received, waited_s
            if encoding not in ("", "identity"):
                raise BodyEncodingError(
                    f"The Content-Encoding is {encoding[:32]!r}; send the body uncompressed, "
                    "without this header."
                )
            if num_announced > max_bytes:
                raise _too_large(num_announced, max_bytes, is_upload=is_upload)
            if ended:  # what comes now is the end of the connection
                return await next_message()
            started_s = time.perf_counter()
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await next_message()
            except TimeoutError:
                raise self._stalled(received) from None
            received += len(message.get("body", b""))
            waited_s += time.perf_counter() - started_s
            is_slow = waited_s > self._idle_s and received < waited_s * self._min_bytes_per_s
            if pending and is_slow:
                raise self._too_slow(received, waited_s)
            if received > max_bytes:
                raise _too_large(received, max_bytes, is_upload=is_upload)
            return message

        async def draining_send(message: Message) -> None:
            nonlocal awaits_continue
            if message["type"] == "http.response.start":
                awaits_continue = awaits_continue or message["status"] == TooSlowError.status
            elif pending and not (awaits_continue or message.get("more_body", False)):
                await send({**message, "more_body": True})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._drain_s):
                        while pending:
                            await next_message()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, limited_receive, draining_send)

    def _stalled(self, received: int) -> TooSlowError:
        return TooSlowError(
            f"{received} bytes of the body came, then none for {self._idle_s:g} s; send it "
            "without such pauses.",
            Connection="close",
        )

    def _too_slow(self, received: int, waited_s: float) -> TooSlowError:
        return TooSlowError(
            f"{received} bytes of the body came in {waited_s:.0f} s; send at least "
            f"{self._min_bytes_per_s} bytes a second.",
            Connection="close",
        )


def _too_large(num_bytes: int, max_bytes: int, *, is_upload: bool) -> UploadTooLargeError:
    how = "compress the audio (FLAC, Opus) or cut it into parts" if is_upload else "send fewer"
    return UploadTooLargeError(
        f"The body has {num_bytes} bytes or more; at most {max_bytes} are accepted: {how}."
    )
