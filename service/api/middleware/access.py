"""Who may send which requests, and how many: API keys, scopes and the rate limit.

A request without a valid key is refused before anything reads its body.
"""

import asyncio
import ipaddress
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from limits import parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from ...inference.errors import NnpmError
from ...keys import ANONYMOUS_NAME, ApiKeys, Scope
from ..errors import (
    KeyMissingError,
    KeyUnknownError,
    RateLimitError,
    ScopeMissingError,
    refuse,
)
from ..headers import REALM
from .tickets import KEY_SCOPES, Tickets, ticket_refused, ticket_scope, wrong_origin


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    Attributes:
        name: of the key; ``anonymous`` on a service without keys.
        scopes: of the key; admin includes all others.
        key_id: of the key; empty on a service without keys.
    """

    name: str
    scopes: frozenset[Scope]
    key_id: str = ""

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
        require(caller, scope)
        return caller

    dependency.__doc__ = f"The caller, who has the scope {scope}."
    return dependency


def require(caller: Caller, scope: Scope) -> None:
    """Check that a caller has a scope.

    Raises:
        ScopeMissingError: if not.
    """
    if scope in caller.scopes or caller.is_admin:
        return
    has = ", ".join(sorted(caller.scopes)) or "none"
    raise ScopeMissingError(
        f"The key {caller.name!r} has these scopes: {has}; the request requires {scope}.",
        WWW_Authenticate=f'{REALM}, error="insufficient_scope", scope="{scope}"',
    )


OPEN_PATHS = (
    *("/health/live", "/health/ready", "/docs", "/openapi.json", "/asyncapi.json"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/", "/nnpm.js"),
)
"""Paths that need no key: probes have none, and the page and the API's description are public."""

_OPEN_FOLDERS = ("/docs/", "/static/")


class Authenticate:
    """Puts the caller of a request or WebSocket into ``state.caller``.

    Every path requires a key unless it is among ``OPEN_PATHS``, so a route without ``requires`` is
    not open to everybody. ``requires`` checks the scope.

    Args:
        app: the application inside.
        keys: that are valid; None allows everybody everything.
        tickets: stand for a key on the paths that browsers open without headers.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys | None, tickets: Tickets) -> None:
        self._app = app
        self._keys = keys
        self._tickets = tickets

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            state = scope.setdefault("state", {})
            try:
                state["caller"] = await self._caller(scope, state.get("ticket"))
            except NnpmError as error:
                await refuse(scope, receive, send, error)
                return
        await self._app(scope, receive, send)

    async def _caller(self, scope: AsgiScope, ticket: str | None) -> Caller:
        if self._keys is None:
            return ANONYMOUS
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(_OPEN_FOLDERS):
            return Caller("", frozenset())
        text = _key_of(scope)
        if text is None and ticket is not None:
            return await self._holder(self._keys, scope, ticket)
        if text is None:
            raise KeyMissingError(
                "The request has no API key; send one as 'Authorization: Bearer …' or "
                "'X-API-Key: …'.",
                WWW_Authenticate=REALM,
            )
        key = self._keys.find(text)
        if key is None:
            raise KeyUnknownError(
                "The API key is unknown or was revoked; ask the operator for a new one.",
                WWW_Authenticate=f'{REALM}, error="invalid_token"',
            )
        if ticket is not None:
            await self._holder(self._keys, scope, ticket, key.id)
        return Caller(key.name, key.scopes, key.id)

    async def _holder(
        self, keys: ApiKeys, scope: AsgiScope, ticket: str, sender_id: str | None = None
    ) -> Caller:
        """Redeem a ticket; its caller may do what the ticket is for, and sees its own jobs only."""
        page = scope["path"]
        kind = ticket_scope(page)
        needed = KEY_SCOPES[kind]
        key_id, origin = await asyncio.to_thread(self._tickets.holder, ticket, kind)
        key = keys.active(key_id)
        if key is None or not key.scopes & {needed, "admin"}:
            raise ticket_refused(f"is of a key that was revoked, or lost the scope {needed}")
        if sender_id not in (None, key_id):
            raise ticket_refused("is of another key than the one that was sent with it")
        wrong = wrong_origin(scope["type"], kind, Headers(scope=scope), origin)
        if wrong is not None:
            raise ticket_refused(wrong)
        await asyncio.to_thread(self._tickets.use, ticket, page)
        return Caller(key.name, frozenset({needed}), key.id)


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
