"""Who may send which requests, and how many: API keys, scopes and the rate limit.

A request without a valid key is refused before anything reads its body.
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
    """The sender of a request.

    Attributes:
        name: of the key; ``anonymous`` on a service without keys.
        scopes: of the key; admin includes all others.
    """

    name: str
    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        """Whether the caller may see and change everything."""
        return "admin" in self.scopes


ANONYMOUS = Caller(ANONYMOUS_NAME, frozenset({"predict", "adapt", "admin"}))


async def caller_of(connection: HTTPConnection) -> Caller:
    """Dependency: the caller of this request or WebSocket, from ``Authenticate``."""
    caller: Caller = connection.state.caller  # an error without that middleware, and not everybody
    return caller


def requires(scope: Scope) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Make the dependency of routes that require a scope."""

    async def dependency(connection: HTTPConnection) -> Caller:
        caller = await caller_of(connection)
        if scope in caller.scopes or caller.is_admin:
            return caller
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise ScopeMissingError(
            f"The key {caller.name!r} has these scopes: {has}; the request requires {scope}.",
            WWW_Authenticate=f'Bearer realm="nnpm", error="insufficient_scope", scope="{scope}"',
        )

    dependency.__doc__ = f"The caller, who has the scope {scope}."
    return dependency


OPEN_PATHS = (
    *("/health/live", "/health/ready", "/docs", "/openapi.json"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/", "/nnpm.js"),
)
"""Paths that need no key: probes have none, and the page and the API's description are public."""

_OPEN_FOLDERS = ("/docs/", "/static/")

_REALM = 'Bearer realm="nnpm"'


class Authenticate:
    """Puts the caller of a request or WebSocket into ``state.caller``.

    Every path requires a key unless it is among ``OPEN_PATHS``, so a route without ``requires`` is
    not open to everybody. ``requires`` checks the scope.

    Args:
        app: the application inside.
        keys: that are valid; None allows everybody everything.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys | None) -> None:
        self._app = app
        self._keys = keys

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
        if self._keys is None:
            return ANONYMOUS
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(_OPEN_FOLDERS):
            return Caller("", frozenset())
        text = _key_of(scope)
        if text is None:
            raise KeyMissingError(
                "The request has no API key; send one as 'Authorization: Bearer …' or "
                "'X-API-Key: …'.",
                WWW_Authenticate=_REALM,
            )
        key = self._keys.find(text)
        if key is None:
            raise KeyUnknownError(
                "The API key is unknown or was revoked; ask the operator for a new one.",
                WWW_Authenticate=f'{_REALM}, error="invalid_token"',
            )
        return Caller(key.name, key.scopes)


def _key_of(scope: AsgiScope) -> str | None:
    """Find the key of a request: a bearer token, else the X-API-Key header."""
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
    """Limits the requests of one key, or of one address on a service without keys.

    Two counters approximate a sliding window, so memory grows with callers and not with requests.
    Each process counts for itself.

    Args:
        app: the application inside.
        rate: such as ``100/minute``, or several separated by ``;``.
    """

    def __init__(self, app: ASGIApp, rate: str) -> None:
        self._app = app
        self._rates = parse_many(rate)
        self._limiter = SlidingWindowCounterRateLimiter(_Counters())

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request or WebSocket on, or refuse it."""
        if scope["type"] in ("http", "websocket") and scope["path"] not in _EXEMPT:
            caller = _name_of(scope)
            for rate in self._rates:
                if not await self._limiter.hit(rate, caller):
                    stats = await self._limiter.get_window_stats(rate, caller)
                    wait_s = max(1, math.ceil(stats.reset_time - time.time()))
                    error = RateLimitError(
                        f"{caller} sent {rate.amount - stats.remaining} requests; at most "
                        f"{_plain(str(rate))} are allowed: try again in {wait_s} s.",
                        Retry_After=str(wait_s),
                    )
                    await refuse(scope, receive, send, error)
                    return
        await self._app(scope, receive, send)


class _Counters(MemoryStorage):
    """Counters in memory that remove expired ones every few seconds.

    The library looks through all of them at every request, which took 8 ms with 50,000 addresses.
    """

    _next_sweep_s = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; there is no await in it, so requests do not interleave."""
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


def _name_of(scope: AsgiScope) -> str:
    caller = scope["state"]["caller"]
    if caller is not ANONYMOUS and caller.name:
        return f"The key {caller.name!r}"
    client = scope.get("client")
    return f"The address {_network(client[0][:64])}" if client else "An unknown address"


@lru_cache(4096)
def _network(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address: one household's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _plain(rate: str) -> str:
    """Shorten ``100 per 1 minute``, as the library writes it."""
    return rate.replace(" per 1 ", " per ")
