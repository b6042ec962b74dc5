"""An answer that comes before the end of the upload still has to reach its client."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 10.0


class Linger:
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
