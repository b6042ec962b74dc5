"""Refuses requests by their Host, their Origin and the size of their headers.

A web page can make a browser send requests to any address, and can make its own name resolve to
this service's address (DNS rebinding). So where no key protects the service, a request with an
unknown Host, or from a page of another site, may come from anybody.
"""

import ipaddress
import logging
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import (
    ForeignOriginError,
    HeadTooLargeError,
    RefusedError,
    TargetTooLongError,
    WrongHostError,
    refuse,
)

MAX_HEADERS = 100
MAX_TARGET_BYTES = 8192
"""Of path and query."""

_MAX_NAME_BYTES = 512
"""Longest host or origin: results are cached by them, so they must be short."""


_MAX_LOGGED = 100

log = logging.getLogger("nnpm")


class HostAndOriginCheck:
    """Refuses requests with an unknown Host, a foreign Origin, or headers that are too large.

    Args:
        app: the application inside.
        hosts: names of the service; ``*.name`` allows all names below one, ``*`` any name.
            Addresses and localhost are always allowed: no DNS answer can redirect them.
        origins: origins whose pages may call the service, besides its own.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._hosts = tuple(hosts)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._is_ours = lru_cache(1024)(self._is_known)
        self._logged: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request or WebSocket on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            try:
                self._check(scope)
            except RefusedError as error:
                await refuse(scope, receive, send, error)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        if len(headers) > MAX_HEADERS:
            raise HeadTooLargeError(
                f"The request has {len(headers)} headers; at most {MAX_HEADERS} are accepted."
            )
        target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if target > MAX_TARGET_BYTES:
            raise TargetTooLongError(
                f"The path and query have {target} bytes; at most {MAX_TARGET_BYTES} are accepted."
            )
        host, origin, site, mode, num_hosts, lengths = b"", None, b"", b"", 0, set()
        for name, value in headers:
            if name == b"host":
                host, num_hosts = value, num_hosts + 1
            elif name == b"origin":
                origin = value.lower()
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-mode":
                mode = value
            elif name in (b"content-length", b"transfer-encoding"):
                lengths.add(name)
        if len(lengths) > 1:
            # A proxy may use the length where we read chunks; the rest of the body would then be
            # a request that the proxy has not seen (request smuggling).
            raise RefusedError(
                "The request has both Content-Length and Transfer-Encoding; send one of them.",
                Connection="close",
            )
        if num_hosts and not (  # HTTP/1.0 may have none
            num_hosts == 1 and len(host) <= _MAX_NAME_BYTES and self._is_ours(host)
        ):
            raise WrongHostError(
                f"The Host header is {_shown(host)}, which is not a name of this service; use an "
                "address or localhost, or add the name to NNPM_ALLOWED_HOSTS."
            )
        if origin is not None:
            if origin not in self._origins and not (
                len(origin) <= _MAX_NAME_BYTES
                and is_own_origin(origin.decode("latin-1"), host.decode("latin-1"))
            ):
                self._log(origin)
                raise ForeignOriginError(
                    f"The request comes from a page of {_shown(origin)}, but this service is "
                    f"{_shown(host)}; to allow it, add the origin to NNPM_ALLOWED_ORIGINS."
                )
        elif site in (b"cross-site", b"same-site") and not (
            mode == b"navigate" and scope.get("method") in ("GET", "HEAD")  # a link is followed
        ):
            raise ForeignOriginError(
                f"The request comes from a page of another site ({_shown(site)}) and has no Origin "
                "header; NNPM_ALLOWED_ORIGINS lists the origins whose pages may call the service."
            )

    def _log(self, origin: bytes) -> None:
        """Name an origin once, with the setting that lets it in; anybody can make up many."""
        origin = origin[:_MAX_NAME_BYTES]
        if origin not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(origin)
            log.warning(
                "a request from a page of %s was refused; to allow it, add it to "
                "NNPM_ALLOWED_ORIGINS",
                _shown(origin),
            )

    def _is_known(self, host: bytes) -> bool:
        name = _name_of(host.decode("latin-1").lower())
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return True
        return any(
            pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in self._hosts
        )


def _name_of(host: str) -> str:
    """Strip the port, the brackets of IPv6 and the dot at the end."""
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        return name if closed and (not port or port.startswith(":")) else ""
    return host.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(1024)
def is_own_origin(origin: str, host: str) -> bool:
    """Whether an origin is this service's own; a proxy may have changed the scheme."""
    _, found, place = origin.partition("://")
    host = host.lower()
    return bool(found) and place in (host, host.removesuffix(":443"), host.removesuffix(":80"))


def _shown(value: bytes) -> str:
    return repr(value[:128].decode("latin-1"))
