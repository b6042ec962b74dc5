"""The outermost middleware: request ids, security headers, metrics, the log line; HEAD as GET."""

import logging
import random
import re
import time
import uuid
from http import HTTPMethod
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ... import logs
from ..headers import complete
from ..metrics import Metrics
from ..tracing import PROBES, Tracing
from .access import ANONYMOUS

_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger("nnpm")


class Observe:
    """Gives a request its id, and counts and logs it.

    A client's X-Request-ID is kept if it has 1 to 128 letters, digits, ``.``, ``_`` and ``-``;
    otherwise the request gets a new one. It is in ``request.state.request_id``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        request_id = sent_id if _VALID_ID.fullmatch(sent_id) else _new_id()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        logs.about(request_id=request_id)
        if (trace_id := self._tracing.trace_id()) is not None:
            logs.about(trace_id=trace_id)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        status, bytes_in = 500, 0

        async def counted() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                complete(message, request_id)
            await send(message)

        started = time.perf_counter()
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, counted, send_with_headers)
            except Exception:
                state["error_code"] = "internal"
                raise
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                seconds = time.perf_counter() - started
                self._metrics.request(route, status, seconds, state.get("error_code"))
                _log_request(scope["method"], route, status, seconds, bytes_in, state)


def _new_id() -> str:
    """Make a UUID without asking the system for random bytes, which takes as long as the form."""
    number = random.getrandbits(128)  # nosec B311 - no secret
    return str(uuid.UUID(int=number, version=4))


def _log_request(
    method: str, route: str, status: int, seconds: float, bytes_in: int, state: dict[str, Any]
) -> None:
    """Write one line, without any path, query, header or name that a client may choose."""
    level = logging.WARNING if status >= 500 else logging.INFO
    if route.startswith(PROBES) and status < 400:
        level = logging.DEBUG
    if not log.isEnabledFor(level):
        return
    duration_ms = round(1000 * seconds, 3)
    facts = {"method": method, "route": route, "status": status, "duration_ms": duration_ms}
    facts["bytes_in"] = bytes_in
    for name, key in _FACTS.items():
        if key in state:
            facts[name] = state[key]
    caller = state.get("caller", ANONYMOUS)
    if caller is not ANONYMOUS and caller.name:
        facts["caller"] = caller.name
    log.log(level, "%s %s %d, %.1f ms", method, route, status, duration_ms, extra=facts)


_FACTS = {"code": "error_code", "audio_s": "audio_s", "model": "model", "version": "version"}
"""Fields that not every request has, and their names in its state."""


class HeadAsGet:
    """Answers HEAD like GET, without the body, as monitors and caches expect.

    Args:
        app: the application inside; it never sees HEAD.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; the answer to HEAD ends with its headers."""
        if scope["type"] != "http" or scope["method"] != HTTPMethod.HEAD:
            await self._app(scope, receive, send)
            return

        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:  # this ends a stream of events, too
                ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app({**scope, "method": HTTPMethod.GET.value}, receive, send_head)
