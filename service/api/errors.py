"""The errors of requests, and the body of every error: RFC 9457 problem details.

Our own errors carry status, title and code at their class; ``FOREIGN`` lists those of libraries.
``install`` makes every error of an app a problem: ours, the frameworks', unexpected ones.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..inference.errors import NnpmError, ParameterError, printable, validation_detail
from .headers import allowed_methods, common_headers


class UploadTooLargeError(NnpmError):
    """More bytes than the limit."""

    status, code, detail = 413, "too_large", None
    title = "The upload is too large"


class UnsupportedBodyError(NnpmError):
    """A Content-Type that the route does not take."""

    status, code, detail = 415, "bad_content_type", None
    title = "Unsupported Content-Type"


class BodyEncodingError(NnpmError):
    """A compressed body."""

    status, code, detail = 415, "bad_content_encoding", None
    title = "Unsupported Content-Encoding"


class BadFormError(NnpmError):
    """A multipart form that cannot be read, or lacks its file."""

    status, code, detail = 422, "bad_form", None
    title = "The form cannot be read"


class NotReadyError(NnpmError):
    """The default model is not loaded yet."""

    status, code, detail, retry_after_s = 503, "not_ready", None, 2
    title = "The service is not ready"


class NotFinishedError(NnpmError):
    """A job whose report is asked for before it has ended."""

    status, code, detail = 409, "not_finished", None
    title = "The job has not ended"


class NoReportError(NnpmError):
    """A job that ended without a report."""

    status, code, detail = 404, "no_report", None
    title = "The job has no report"


class EvaluationError(NnpmError):
    """A version or recordings that cannot be evaluated."""

    status, code, detail = 422, "evaluation_failed", None
    title = "The version cannot be evaluated"


class NoClipError(NnpmError):
    """Audio that a job does not have, or has no longer."""

    status, code, detail = 404, "no_clip", None
    title = "The job has no such audio"


class StreamIdleError(NnpmError):
    """A stream on which no audio came for too long, or that was open for too long."""

    status, code, detail = 408, "idle", None
    title = "The stream was idle for too long"


class RefusedError(NnpmError):
    """A request that is refused for who sent it, or how, before anything reads it.

    Args:
        message: the number seen, the number allowed, and what to do.
        **headers: of the answer; ``_`` stands for ``-``.
    """

    status, code, detail = 400, "bad_request", None
    title = "Invalid request"

    def __init__(self, message: str, **headers: str) -> None:
        super().__init__(message)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class KeyMissingError(RefusedError):
    """A request without a key, where one is required."""

    status, code = 401, "key_missing"
    title = "API key required"


class KeyUnknownError(RefusedError):
    """A key that was never made, or was revoked."""

    status, code = 401, "key_unknown"
    title = "Unknown API key"


class TicketRefusedError(RefusedError):
    """A ticket that is unknown, used, expired, or of another key, page or purpose."""

    status, code = 401, "ticket_refused"
    title = "Ticket refused"


class ScopeMissingError(RefusedError):
    """A key without the scope that the route requires."""

    status, code = 403, "scope_missing"
    title = "API key lacks the required scope"


class RateLimitError(RefusedError):
    """More requests than the rate limit allows."""

    status, code = 429, "rate_limited"
    title = "Too many requests"


class WrongHostError(RefusedError):
    """A Host header that is not a name of this service."""

    status, code = 421, "wrong_host"
    title = "Unknown host name"


class ForeignOriginError(RefusedError):
    """A browser sends it for a page of another site."""

    status, code = 403, "foreign_origin"
    title = "Cross-origin request refused"


class HeadTooLargeError(RefusedError):
    """Headers that are too many or too long."""

    status, code = 431, "head_too_large"
    title = "The headers are too large"


class TargetTooLongError(RefusedError):
    """A path and query that are too long."""

    status, code = 414, "target_too_long"
    title = "The path and query are too long"


class TooSlowError(RefusedError):
    """A client that takes too long to send."""

    status, code = 408, "too_slow"
    title = "The request was sent too slowly"


class TooManyConnectionsError(RefusedError):
    """More connections than the limit."""

    status, code, retry_after_s = 503, "too_many_connections", 5
    title = "Too many connections"


MEDIA_TYPE = "application/problem+json"

log = logging.getLogger("nnpm")


@dataclass(frozen=True, slots=True)
class Kind:
    """What one class of errors is to a client; the attributes are those of ``NnpmError``."""

    status: int
    title: str
    code: str
    detail: str | None = None
    retry_after_s: int | None = None

    @classmethod
    def of(cls, error: type[NnpmError]) -> Self:
        """Read the attributes of one of our classes."""
        return cls(error.status, error.title, error.code, error.detail, error.retry_after_s)


FOREIGN: dict[type[Exception], Kind] = {
    ClientDisconnect: Kind(
        400,
        "The upload broke off",
        "disconnected",
        detail="The connection closed before the body was complete.",
    ),
    Exception: Kind.of(NnpmError),
}
"""Errors of libraries. HTTPException brings its own status, and invalid fields are
``ParameterError``'s kind."""


def kind_of(error: Exception) -> Kind:
    """Find the kind of an error through its class tree."""
    if isinstance(error, NnpmError):
        return Kind.of(type(error))
    return next(FOREIGN[cls] for cls in type(error).__mro__ if cls in FOREIGN)


def all_kinds() -> list[Kind]:
    """List the kinds that an answer may have, in order of their codes."""
    ours = {kind.code: kind for kind in FOREIGN.values()}
    waiting: list[type[NnpmError]] = [NnpmError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if "code" in vars(error):
            ours[error.code] = Kind.of(error)
    return [ours[code] for code in sorted(ours)]


class Problem(BaseModel):
    """An error, as in RFC 9457."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """URI of the kind of problem."""
    title: str
    """The same for every problem of this kind."""
    status: int
    """The HTTP status again."""
    detail: str
    """What was sent, what is allowed, and what to do."""
    code: str
    """The kind of problem, for programs."""
    request_id: str = ""
    """As in the X-Request-ID header."""


class InferenceProblem(Problem):
    """An error under /v2, for clients of problem details and of the Open Inference Protocol."""

    error: str
    """``detail`` again, as the protocol requires."""


def problem_of(error: Exception, request_id: str | None = None) -> Problem:
    """Describe an error, for one item among many as well as for a whole request."""
    kind = kind_of(error)
    return _describe(kind, kind.detail or str(error), request_id)


def _describe(kind: Kind, detail: str, request_id: str | None) -> Problem:
    extras = {} if request_id is None else {"request_id": request_id}
    return Problem(
        type=f"urn:nnpm:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail=printable(detail),
        code=kind.code,
        **extras,
    )


def install(app: FastAPI) -> None:
    """Answer every error of an app with a problem: ours, the frameworks', unexpected ones."""
    app.add_exception_handler(NnpmError, _on_error)
    for cls in FOREIGN:
        app.add_exception_handler(cls, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def refuse(scope: Scope, receive: Receive, send: Send, error: NnpmError) -> None:
    """Answer a request, or the handshake of a WebSocket, with an error: for middleware."""
    response = await _on_error(HTTPConnection(scope), error)
    await response(scope, receive, send)


async def _on_error(request: HTTPConnection, error: Exception) -> Response:
    kind = kind_of(error)
    if kind.status >= 500 and kind.detail is not None and isinstance(error, NnpmError):
        log.error("request %s: %s", request.state.request_id, error)
    headers = error.headers if isinstance(error, RefusedError) else None
    return _respond(request, kind, kind.detail or str(error), headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes) and error.body:  # which FastAPI parses only as JSON
        sent = request.headers.get("content-type", "").partition(";")[0][:64]
        detail = f"The Content-Type is {sent!r}; send JSON with Content-Type: application/json."
        return _respond(request, Kind.of(ParameterError), detail)
    # The first part of a place is where the field was: query, path or body.
    found = [{**one, "loc": one["loc"][1:]} for one in error.errors()]
    detail = validation_detail(found, document="The body")
    return _respond(request, Kind.of(ParameterError), detail)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, NnpmError):  # FastAPI's wrapper of one of ours, from the body
        return await _on_error(request, error.__cause__)
    if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI, of JSON that is not even text
        detail = "The body cannot be read; it must be JSON in UTF-8."
        return _respond(request, Kind.of(ParameterError), detail)
    phrase = HTTPStatus(error.status_code).phrase
    kind = Kind(error.status_code, phrase, re.sub(r"\W+", "_", phrase.lower()))
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = allowed_methods(request.app, request.scope["path"])
        headers = {"Allow": allowed} if allowed else headers
    return _respond(request, kind, _http_detail(request, error, headers), headers)


def _http_detail(request: Request, error: HTTPException, headers: Mapping[str, str] | None) -> str:
    path = request.scope["path"][:128]
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            slash = "leave out the slash at its end; " if path[1:].endswith("/") else ""
            return f"The path {path} does not exist; {slash}/docs lists the paths that do."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (headers or {}).get("Allow", "another method")
            return f"{path} does not accept {request.method}; use {allowed}."
        case _:
            return str(error.detail)


def _respond(
    request: HTTPConnection, kind: Kind, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    request_id = getattr(request.state, "request_id", "")
    request.state.error_code = kind.code
    extra = {**(headers or {}), **common_headers(request_id)}
    if kind.retry_after_s is not None:
        extra["Retry-After"] = str(kind.retry_after_s)
    problem = _describe(kind, detail, request_id)
    if request.scope["path"].split("/", 2)[1:2] == ["v2"]:
        problem = InferenceProblem(**problem.model_dump(), error=problem.detail)
    return Response(problem.model_dump_json(), kind.status, extra, MEDIA_TYPE)
