"""Keys: whoever calls without a good one is refused before anything reads the request."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.auth import ANONYMOUS, Caller
from service.api.errors import KeyMissingError, KeyUnknownError, RefusedError
from service.api.handlers import refuse
from service.keys.ring import KeyRing

OPEN_PATHS = (
    *("/health/live", "/health/ready", "/docs", "/openapi.json"),
    *("/v2", "/v2/health/live", "/v2/health/ready"),
)
"""Without a key: probes have none, and the API's description is the same everywhere."""

_REALM = 'Bearer realm="nnpm"'


class Authenticate:
    """Puts the caller of a request or WebSocket into ``state.caller``.

    Every path wants a key unless it is among the open ones, so that a route which forgets its
    scope is not open to everybody. Scopes are the routes' own, by ``requires``.

    Args:
        app: the application inside.
        ring: of keys; None: everybody may do everything.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing | None) -> None:
        self._app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            try:
                caller = self._caller(scope)
            except RefusedError as error:
                await refuse(scope, receive, send, error)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        if self._ring is None:
            return ANONYMOUS
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith("/docs/"):
            return Caller("", frozenset())
        text = _sent(scope)
        if text is None:
            raise KeyMissingError(
                "No key was sent; one is wanted: 'Authorization: Bearer …', or 'X-API-Key: …'.",
                WWW_Authenticate=_REALM,
            )
        key = self._ring.find(text)
        if key is None:
            raise KeyUnknownError(
                "The key that was sent is not known, or was revoked; ask for another one.",
                WWW_Authenticate=f'{_REALM}, error="invalid_token"',
            )
        return Caller(key.name, key.scopes)


def _sent(scope: Scope) -> str | None:
    """The key of a request: a bearer's token, else the header of its own."""
    own: str | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            if kind.lower() == "bearer":
                return str(token).strip()
        elif name == b"x-api-key":
            own = str(value.decode("latin-1")).strip()
    return own
