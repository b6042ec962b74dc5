"""Headers that every answer carries, and the methods that a path allows."""

from functools import lru_cache
from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path
from starlette.types import Message

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_RAW = [(name.lower().encode(), value.encode()) for name, value in SECURITY.items()]


def complete(message: Message, request_id: str) -> None:
    """Add the common headers to the start of a response, unless it has its own."""
    headers = [*message["headers"], (b"x-request-id", request_id.encode())]
    given = {name for name, _ in message["headers"]}
    if b"x-request-id" in given:
        headers.pop()
    headers.extend(pair for pair in _RAW if pair[0] not in given)
    message["headers"] = headers


def common_headers(request_id: str) -> dict[str, str]:
    """Return the common headers, for answers that no middleware completes."""
    return {"X-Request-ID": request_id, **SECURITY}


def allowed_methods(app: FastAPI, path: str) -> str | None:
    """List the methods of a path as ``Allow`` does; None if the document lacks the path.

    Starlette lists those of one route only, and several routes may share a path.
    """
    matching = [
        (template.count("{"), methods)
        for template, methods in _documented(app)
        if compile_path(template)[0].match(path)
    ]
    if not matching:
        return None
    fewest = min(number for number, _ in matching)
    return ", ".join(sorted({m for number, found in matching if number == fewest for m in found}))


@lru_cache(maxsize=8)
def _documented(app: FastAPI) -> list[tuple[str, frozenset[str]]]:
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return [(template, _with_head(operations)) for template, operations in paths.items()]


def _with_head(operations: dict[str, Any]) -> frozenset[str]:
    methods = {method.upper() for method in operations}
    return frozenset(methods | ({"HEAD"} if "GET" in methods else set()))
