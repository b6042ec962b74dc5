"""Headers that every answer carries unless it says otherwise."""

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
    """Add to the start of a response what it lacks."""
    headers = [*message["headers"], (b"x-request-id", request_id.encode())]
    given = {name for name, _ in message["headers"]}
    if b"x-request-id" in given:
        headers.pop()
    headers.extend(pair for pair in _RAW if pair[0] not in given)
    message["headers"] = headers
