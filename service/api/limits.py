"""The upload limit: bytes are counted as they come, before anything parses or stores them."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import UploadTooLargeError


class UploadLimit:
    """Refuses bodies over a limit, whether their length is announced or not (chunked).

    Args:
        app: the application inside.
        max_bytes: of one request body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let whoever reads the body meet the error: at once if the length was announced."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        num_announced = int(announced) if announced.isdecimal() else 0
        received = 0

        async def counted() -> Message:
            nonlocal received
            if num_announced > self._max_bytes:
                raise self._error(num_announced)
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._error(received)
            return message

        await self._app(scope, counted, send)

    def _error(self, num_bytes: int) -> UploadTooLargeError:
        return UploadTooLargeError(
            f"{num_bytes} bytes or more; at most {self._max_bytes} are accepted: "
            "compress the audio (FLAC, Opus) or cut it into parts."
        )
