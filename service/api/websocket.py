"""How uvicorn speaks WebSocket here: bounded messages, pings, and nobody who hangs on for ever."""

import asyncio
import logging
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.settings import Settings

PING_S = 20.0
"""Between pings."""

PONG_S = 60.0
"""For the answer to a ping, which waits behind the audio that is on its way."""

GOODBYE_S = 5.0
"""For the last bytes of a connection that is over."""


_log = logging.getLogger("uvicorn.error.websocket")
_log.setLevel(logging.WARNING)  # its lines about connections hold addresses and queries


class Protocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, for clients that do not read.

    uvicorn ends a connection once all that was written has been sent, which a client that does not
    read puts off for ever; and it answers pings without looking whether anybody takes the answers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log

    async def run_asgi(self) -> None:
        """Cut the connection some time after the application is done with it."""
        await super().run_asgi()
        asyncio.get_running_loop().call_later(GOODBYE_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Read nothing while the client does not read."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a handshake that was refused is over then, which uvicorn takes for a mistake."""
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """What ``uvicorn.Config`` is to be told about WebSockets."""
    return {
        "ws": Protocol,
        "ws_max_size": settings.max_message_bytes,
        "ws_ping_interval": PING_S,
        "ws_ping_timeout": PONG_S,
        "ws_per_message_deflate": False,  # audio does not shrink, and a small message may grow
    }
