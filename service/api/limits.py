"""The upload limit: bytes are counted as they come, before anything parses or stores them."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import UploadTooLargeError

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
