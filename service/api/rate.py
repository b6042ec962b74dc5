"""How many requests one caller may send in a while."""

import ipaddress
import math
import time
from functools import lru_cache

from limits import parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.auth import ANONYMOUS
from service.api.errors import RateLimitError
from service.api.handlers import refuse

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


def _who(scope: Scope) -> str:
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
