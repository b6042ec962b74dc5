"""Paths and headers: common headers, a path's methods and prefix, the format of an answer."""

import re
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Message, Scope

from ..predict.predict import PredictQuery
from ..predict.tables import FORMATS, require_format

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


def without_prefix(path: str, prefix: str) -> str:
    """Take a prefix off a path, where a proxy has left it on.

    Examples:
        >>> without_prefix("/emotion/predict", "/emotion"), without_prefix("/predict", "/emotion")
        ('/predict', '/predict')
    """
    if path == prefix or path.startswith(f"{prefix}/"):
        return path.removeprefix(prefix) or "/"
    return path


REALM = 'Bearer realm="nnpm"'
"""How a request says who it is: the WWW-Authenticate header of a refusal."""

TICKET_PATHS = re.compile(r"/stream|/adapt/[^/]+/(events|report)")
"""Paths that a browser opens without headers of its own, and that a ticket may open."""


def hide_ticket(scope: Scope) -> Scope:
    """Move the ticket of a request from its query to ``state.ticket``: no trace or log shows it."""
    if not TICKET_PATHS.fullmatch(scope["path"]):
        return scope
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    tickets = [value for name, value in pairs if name == "ticket"]
    query = urlencode([pair for pair in pairs if pair[0] != "ticket"])
    state = {**scope.get("state", {}), "ticket": tickets[0] if len(tickets) == 1 else ""}
    return {**scope, "query_string": query.encode("latin-1"), "state": state}


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


# text/plain is left out: clients that ask for it rarely mean the label track of Audacity.
_BY_MEDIA_TYPE = {
    form.media_type: name for name, form in FORMATS.items() if form.media_type != "text/plain"
} | {"application/jsonl": "jsonl", "*/*": "json", "application/*": "json"}


def answer_format(request: Request, query: PredictQuery, *, many: bool) -> str:
    """Find the format of an answer: the parameter's, else the first in Accept that we know.

    Args:
        request: with or without an Accept header.
        query: may have the parameter ``format``.
        many: whether several recordings go into the answer.

    Raises:
        ParameterError: if the format holds one recording, and there may be more.
        ExtraMissingError: if what it needs is not installed.
    """
    name = query.format or _accepted(request.headers.get("accept", ""))
    require_format(name, many=many)
    return name


def _accepted(header: str) -> str:
    """The format that an Accept header prefers; json if it names none of ours."""
    if header in ("", "*/*", "application/json"):
        return "json"

    def preference(part: str) -> float:
        _, _, quality = part.replace(" ", "").lower().partition(";q=")
        try:
            return -float(quality.partition(";")[0] or 1)
        except ValueError:
            return 0.0

    for part in sorted(header.split(","), key=preference):
        media_type = part.partition(";")[0].strip().lower()
        if media_type == "application/json":
            break
        if media_type in _BY_MEDIA_TYPE and preference(part):
            return _BY_MEDIA_TYPE[media_type]
    return "json"


def written(name: str, body: bytes | str, recording: str) -> Response:
    """Answer in a format; all but JSON are a download, named after the recording.

    Args:
        name: of the format.
        body: the answer in it.
        recording: the name of the upload.
    """
    headers = {"Vary": "Accept"}
    if name == "json":
        return Response(body, headers=headers, media_type="application/json")
    form = FORMATS[name]
    file = "".join(filter(str.isprintable, PurePath(recording).stem)) or "answer"
    headers["Content-Disposition"] = (
        f"attachment; filename*=UTF-8''{quote(f'{file[:128]}{form.suffix}', safe='')}"
    )
    return Response(body, headers=headers, media_type=form.media_type)


FORMAT_CONTENT: dict[str, Any] = {
    "application/json": {},
    **{form.media_type: {} for form in FORMATS.values()},
}
"""Media types of an answer, for the OpenAPI document."""
