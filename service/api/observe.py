"""What surrounds every request: its id, security headers, and the request metrics."""

import re
import time
import uuid

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import headers
from service.api.metrics import Metrics

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def common_headers(request_id: str) -> dict[str, str]:
    """Headers that every response carries, errors from outside of this middleware included."""
    return {"X-Request-ID": request_id, **headers.SECURITY}


class Observe:
    """Outermost middleware.

    A client's X-Request-ID is kept where it is sane (1 to 128 letters, digits, ``.``, ``_``,
    ``-``); otherwise the request gets a new one. It stands in ``request.state.request_id``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        request_id = sent_id if _SANE_ID.fullmatch(sent_id) else str(uuid.uuid4())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers.complete(message, request_id)
            await send(message)

        started = time.perf_counter()
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception:
                state["error_code"] = "internal"
                raise
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                seconds = time.perf_counter() - started
                self._metrics.request(route, status, seconds, state.get("error_code"))
