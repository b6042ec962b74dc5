"""Who calls, and what they may do: the caller of a request, and the scope that a route wants.

Keys: whoever calls without a good one is refused before anything reads the request.

How many requests one caller may send in a while.
"""

import ipaddress
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from limits import parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from ...keys import ANONYMOUS_NAME, ApiKeys, Scope
from ..errors import (
    KeyMissingError,
    KeyUnknownError,
    RateLimitError,
    RefusedError,
    ScopeMissingError,
    refuse,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        name: of the key; ``anonymous`` on an open service.
        scopes: what the key is for; admin is for everything.
    """

    name: str
    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        """Whether this caller may see and change everything."""
        return "admin" in self.scopes


ANONYMOUS = Caller(ANONYMOUS_NAME, frozenset({"predict", "adapt", "admin"}))


async def caller_of(connection: HTTPConnection) -> Caller:
    """Dependency: the caller of this request or WebSocket, as ``Authenticate`` found it."""
    caller: Caller = connection.state.caller  # without that middleware there is none, not anybody
    return caller


def requires(scope: Scope) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Make the dependency of routes that want a scope."""

    async def dependency(connection: HTTPConnection) -> Caller:
        caller = await caller_of(connection)
        if scope in caller.scopes or caller.is_admin:
            return caller
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise ScopeMissingError(
            f"The key {caller.name!r} has the scopes: {has}; {scope} is wanted.",
            WWW_Authenticate=f'Bearer realm="nnpm", error="insufficient_scope", scope="{scope}"',
        )

    dependency.__doc__ = f"The caller, who has the scope {scope}."
    return dependency


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

    def __init__(self, app: ASGIApp, ring: ApiKeys | None) -> None:
        self._app = app
        self._ring = ring

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            try:
                caller = self._caller(scope)
            except RefusedError as error:
                await refuse(scope, receive, send, error)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    def _caller(self, scope: AsgiScope) -> Caller:
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


def _sent(scope: AsgiScope) -> str | None:
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


_HEALTH = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
_EXEMPT = (*_HEALTH, "/metrics")

_SWEEP_S = 10.0


class RateLimit:
    """Refuses what one key, or one address on an open service, sends too often.

    A window slides by two counters, so a caller costs no memory per request. Each process counts
    for itself.

    Args:
        app: the application inside.
        rate: such as ``100/minute``, or several with ``;`` between them.
    """

    def __init__(self, app: ASGIApp, rate: str) -> None:
        self._app = app
        self._rates = parse_many(rate)
        self._limiter = SlidingWindowCounterRateLimiter(_Counters())

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request or WebSocket on, or refuse it."""
        if scope["type"] in ("http", "websocket") and scope["path"] not in _EXEMPT:
            caller = _who(scope)
            for rate in self._rates:
                if not await self._limiter.hit(rate, caller):
                    stats = await self._limiter.get_window_stats(rate, caller)
                    wait_s = max(1, math.ceil(stats.reset_time - time.time()))
                    error = RateLimitError(
                        f"{rate.amount - stats.remaining} requests were sent lately by {caller}; "
                        f"at most {_spoken(str(rate))} are wanted. Come back in {wait_s} s.",
                        Retry_After=str(wait_s),
                    )
                    await refuse(scope, receive, send, error)
                    return
        await self._app(scope, receive, send)


class _Counters(MemoryStorage):
    """Counters in memory that look for expired ones now and then.

    The library's own look through all of them at every request: with 50,000 addresses that took
    8 ms each.
    """

    _next_sweep_s = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; nothing here waits, so no other request comes between."""
        now_s = time.time()
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + _SWEEP_S
            for expired in [one for one, end_s in self.expirations.items() if end_s <= now_s]:
                self._forget(expired)
        if self.expirations.get(key, 0.0) <= now_s:
            self._forget(key)
            self.expirations[key] = now_s + expiry
        self.storage[key] += amount
        return self.storage[key]

    def _forget(self, key: str) -> None:
        self.storage.pop(key, None)
        self.expirations.pop(key, None)


def _who(scope: AsgiScope) -> str:
    caller = scope["state"]["caller"]
    if caller is not ANONYMOUS and caller.name:
        return f"the key {caller.name!r}"
    client = scope.get("client")
    return f"the address {_network(client[0][:64])}" if client else "an unknown address"


@lru_cache(4096)
def _network(address: str) -> str:
    """An address, or what one household has of IPv6: 2^64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _spoken(rate: str) -> str:
    """``100 per 1 minute``, as the library writes it."""
    return rate.replace(" per 1 ", " per ")
