"""How long an upload may take: a client that sends nothing, or next to nothing, is given up."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import TooSlowError


class Patience:
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
