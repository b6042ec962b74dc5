"""An answer that comes before the end of the upload still has to reach its client."""

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 10.0


class Linger:
    """Reads and drops the rest of a body that was answered early, then sends the answer.

    A connection that is closed while its client still sends is reset, and most clients then
    report the reset instead of the answer: a refusal would never be seen. A client that waits for
    "100 Continue" has sent nothing yet and is answered at once.

    Args:
        app: the application inside.
        seconds: to wait for the rest at most.
    """

    def __init__(self, app: ASGIApp, seconds: float = LINGER_S) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and drop what is left of its body before the response starts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        waits = Headers(scope=scope).get("expect", "").lower() == "100-continue"
        complete = False

        async def watched() -> Message:
            nonlocal complete, waits
            waits = False  # asking for the body sends "100 Continue"
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def late(message: Message) -> None:
            if message["type"] == "http.response.start" and not waits:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds):
                        while not complete:
                            await watched()
            await send(message)

        await self._app(scope, watched, late)
