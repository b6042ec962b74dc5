"""uvicorn's protocols for HTTP and WebSocket, with limits for slow and hostile clients.

uvicorn limits neither the time that the head of a request may take nor what it keeps for a client
that reads nothing. It accepts a head of 256 KiB if it comes in one piece, and answers invalid HTTP
and too many connections in its own words. These protocols close those gaps.
"""

import asyncio
import logging
import re
import sys
import time
import uuid
from http import HTTPStatus
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..settings import Settings
from .errors import (
    MEDIA_TYPE,
    HeadTooLargeError,
    RefusedError,
    TooManyConnectionsError,
    TooSlowError,
    kind_of,
    problem_of,
    refuse,
)
from .headers import common_headers, without_prefix

PING_S = 20.0
"""Seconds between pings."""

PONG_S = 60.0
"""Seconds for the answer to a ping, which waits behind the audio that was sent before it."""

GOODBYE_S = 5.0
"""Seconds for the last bytes of a connection that has ended."""


log = logging.getLogger(__name__)
_websocket_log = logging.getLogger("uvicorn.error.websocket")
# Its lines about connections hold addresses and queries. Not a level: a configuration resets that.
_websocket_log.addFilter(lambda record: record.levelno >= logging.WARNING)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, safe against clients that do not read.

    uvicorn ends a connection once everything has been sent, which never happens if the client does
    not read; and it answers pings even if the client takes none of the answers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _websocket_log

    async def run_asgi(self) -> None:
        """Cut the connection some seconds after the application has ended."""
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
        """Send; and mark a refused handshake as complete, which uvicorn forgets."""
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of ``uvicorn.Config`` about WebSockets."""
    return {
        "ws": WebSocketConnection,
        "ws_max_size": settings.max_message_bytes,
        "ws_ping_interval": PING_S,
        "ws_ping_timeout": PONG_S,
        "ws_per_message_deflate": False,  # audio does not compress
    }


MAX_HEAD_BYTES = 32 * 1024
WRITE_TIMEOUT_S = 60.0
"""A client that reads none of its answer for so many seconds is cut off."""

_SPARE = 64
"""Connections beyond the limit that get an error; even more are cut off."""

_LOG_AGAIN_S = 10.0
_END_OF_HEAD = re.compile(rb"\n\r?\n")


def protocol(settings: Settings) -> type[H11Protocol]:
    """Make the HTTP protocol of a server with these settings."""

    class Configured(Connection):
        max_connections = settings.max_connections
        head_timeout_s = settings.head_timeout_s
        prefix = settings.root_path or ""

    return Configured


class Connection(H11Protocol):
    """Limits the head of each request in time and size, and answers invalid HTTP with problems."""

    max_connections: int
    head_timeout_s: float
    prefix: str

    _last_logged_s = -_LOG_AGAIN_S
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _received_any = False
    _crowded = False
    _tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a head."""
        super().connection_made(transport)
        num_connections = len(self.connections)
        if num_connections > self.max_connections:
            self._log_crowded()
            if num_connections > self.max_connections + _SPARE:
                transport.abort()
                return
            self._crowded = True
            self.app = _health_only(self.app, self._crowd_error(), self.prefix)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_head_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless the head gets too large."""
        self._received_any = True
        if (
            len(data) > MAX_HEAD_BYTES
            and self._awaits_head
            and not _END_OF_HEAD.search(self._tail + data[:MAX_HEAD_BYTES])
        ):
            self._refuse(_head_too_large())
            return
        self._tail = data[-2:]
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # a WebSocket now
            return
        if not self._awaits_head:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._start_head_timer()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection to the WebSocket protocol."""
        self._stop_head_timer()
        if self._crowded:
            self._refuse(self._crowd_error())
        else:
            super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Close the connection if the body was not read to its end, or the client does not read."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()
        self._abort_if_stuck()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._abort_if_stuck()

    def pause_writing(self) -> None:
        """Give a client that reads too slowly some time."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client reads again."""
        super().resume_writing()
        self._stop_write_timer()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - we word it ourselves
        """Answer invalid HTTP."""
        if self.cycle is not None and self.cycle.response_started and not self._awaits_head:
            self.transport.close()  # an answer has been sent in part
            return
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(_head_too_large())
        else:
            self._refuse(RefusedError("The request is not valid HTTP/1.1."))

    @property
    def _awaits_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, error: RefusedError) -> None:
        """Answer without the application, and close."""
        self._stop_head_timer()
        if not self.transport.is_closing():
            self.transport.write(_raw(error))
            self.transport.close()
            self._abort_if_stuck()

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self._received_any:  # browsers open connections in advance
            self.transport.close()
            return
        self._refuse(
            TooSlowError(
                f"The headers were not complete after {self.head_timeout_s:g} s; send them in one "
                "piece."
            )
        )

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _abort_if_stuck(self) -> None:
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._stop_write_timer()
            self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def _crowd_error(self) -> TooManyConnectionsError:
        return TooManyConnectionsError(
            f"{len(self.connections)} connections are open; at most {self.max_connections} are "
            "allowed: try again later.",
            Connection="close",
        )

    def _log_crowded(self) -> None:
        now_s = time.monotonic()
        if now_s - Connection._last_logged_s >= _LOG_AGAIN_S:
            Connection._last_logged_s = now_s
            log.warning(
                "%d connections are open; at most %d are allowed (NNPM_MAX_CONNECTIONS)",
                len(self.connections),
                self.max_connections,
            )


def _health_only(app: ASGIApp, error: TooManyConnectionsError, prefix: str) -> ASGIApp:
    """Let probes of the health pass, and refuse everything else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if without_prefix(scope["path"], prefix).startswith("/health/"):
            await app(scope, receive, send)
        else:
            scope["state"]["request_id"] = str(uuid.uuid4())
            await refuse(scope, receive, send, error)

    return answer


def _head_too_large() -> HeadTooLargeError:
    return HeadTooLargeError(
        f"The path, query and headers have more than {MAX_HEAD_BYTES} bytes; send fewer."
    )


def _raw(error: RefusedError) -> bytes:
    """Write an answer to a request that could not be parsed."""
    kind = kind_of(error)
    request_id = str(uuid.uuid4())
    body = problem_of(error, request_id).model_dump_json().encode()
    headers = {
        **common_headers(request_id),
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    if kind.retry_after_s is not None:
        headers["Retry-After"] = str(kind.retry_after_s)
    phrase = HTTPStatus(kind.status).phrase
    lines = [f"HTTP/1.1 {kind.status} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
