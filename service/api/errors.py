"""Errors that only a request can have; problems.py has their status codes.

The one table from error to status, and the body of every error: RFC 9457 problem details.

Every error of an app becomes a problem: ours, the frameworks', unexpected ones.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..inference import errors
from ..inference.errors import NnpmError, ParameterError
from ..jobs import errors as job_errors
from ..jobs.errors import IntakeError
from ..predict.pool import OverloadedError
from ..registry import registry
from .headers import allowed_methods, common_headers


class UploadTooLargeError(NnpmError):
    """More bytes than the limit."""


class UnsupportedBodyError(NnpmError):
    """A Content-Type that carries no audio."""


class BadFormError(NnpmError):
    """A multipart form that cannot be read, or lacks its file."""


class NotReadyError(NnpmError):
    """The default model is not loaded yet."""


class ExtraMissingError(NnpmError):
    """What was asked for needs packages that are not installed."""


class NoReportError(NnpmError):
    """A job that has no report, or none yet."""


class RefusedError(NnpmError):
    """A request that is refused for who sent it, or how, before anything reads it.

    Args:
        message: the number seen and the number wanted, and what to do.
        **headers: of the answer; ``_`` stands for ``-``.
    """

    def __init__(self, message: str, **headers: str) -> None:
        super().__init__(message)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class KeyMissingError(RefusedError):
    """A request without a key, where one is wanted."""


class KeyUnknownError(RefusedError):
    """A key that nobody made, or that was revoked."""


class ScopeMissingError(RefusedError):
    """A key that is not for this."""


class RateLimitError(RefusedError):
    """More requests than one may send in a while."""


class WrongHostError(RefusedError):
    """A name under which the service is not called."""


class ForeignOriginError(RefusedError):
    """A page of elsewhere drives a browser."""


class HeadTooLargeError(RefusedError):
    """Headers that are too many or too long."""


class TargetTooLongError(RefusedError):
    """A path and query that are too long."""


class TooSlowError(RefusedError):
    """A client that takes too long to send."""


class TooManyConnectionsError(RefusedError):
    """More connections than there may be."""


class StreamMessageError(NnpmError):
    """A message of a stream that is none: no hello, text among audio, half a sample."""


class StreamIdleError(NnpmError):
    """A stream on which nothing came for too long."""


class TooManyStreamsError(NnpmError):
    """As many streams as may be are open."""


class InferenceRequestError(NnpmError):
    """A request of the Open Inference Protocol that cannot be used."""


class BodyEncodingError(NnpmError):
    """A compressed body."""


MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What one class of errors is to a client.

    Attributes:
        status: HTTP status.
        title: the same for every error of the kind.
        code: stable, for programs.
        detail: replaces the error's message where that is not for the client.
        retry_after_s: when to come back.
    """

    status: int
    title: str
    code: str
    detail: str | None = None
    retry_after_s: int | None = None


KINDS: dict[type[Exception], Kind] = {
    errors.AudioError: Kind(422, "The audio cannot be scored", "bad_audio"),
    errors.NotAudioError: Kind(415, "Not audio that we read", "not_audio"),
    errors.DamagedAudioError: Kind(422, "The audio is damaged", "damaged_audio"),
    errors.CostlyAudioError: Kind(422, "The audio is too costly to decode", "costly_audio"),
    errors.AudioTooShortError: Kind(422, "The audio is too short", "too_short"),
    errors.AudioTooLongError: Kind(413, "The audio is too long", "too_long"),
    errors.NoRoomError: Kind(503, "No room", "storage_full", retry_after_s=60),
    errors.ParameterError: Kind(422, "A parameter is out of range", "bad_parameter"),
    errors.BundleError: Kind(
        503,
        "The model cannot be loaded",
        "model_unavailable",
        detail="The model's bundle cannot be loaded; the service's log says why.",
        retry_after_s=30,
    ),
    registry.UnknownModelError: Kind(404, "There is no such model", "unknown_model"),
    registry.ModelInUseError: Kind(409, "The version is in use", "model_in_use"),
    registry.NothingToRollBackError: Kind(409, "Nothing to roll back", "nothing_to_roll_back"),
    registry.RegistryError: Kind(
        503,
        "The registry cannot be used",
        "registry_unavailable",
        detail="The models folder cannot be read or written; the service's log says why.",
        retry_after_s=30,
    ),
    IntakeError: Kind(422, "What was handed over cannot be used", "bad_intake"),
    job_errors.UnknownJobError: Kind(404, "There is no such job", "unknown_job"),
    job_errors.KeyTakenError: Kind(409, "The key was used before", "key_taken"),
    job_errors.TransitionError: Kind(409, "The job cannot go there", "job_state"),
    job_errors.LostLeaseError: Kind(409, "The job is another's", "lost_lease"),
    job_errors.CancelledError: Kind(409, "The job is cancelled", "cancelled"),
    job_errors.StoreUnavailableError: Kind(
        503,
        "The jobs cannot be reached",
        "store_unavailable",
        detail="The database of jobs cannot be used now; the service's log says why.",
        retry_after_s=10,
    ),
    job_errors.StoreConfigurationError: Kind(
        503,
        "The jobs cannot be reached",
        "store_misconfigured",
        detail="The database of jobs is not set up; the service's log says why.",
        retry_after_s=60,
    ),
    UploadTooLargeError: Kind(413, "The upload is too large", "too_large"),
    UnsupportedBodyError: Kind(415, "Not a body that carries audio", "bad_content_type"),
    BadFormError: Kind(422, "The form cannot be read", "bad_form"),
    OverloadedError: Kind(503, "The queue is full", "overloaded", retry_after_s=1),
    ExtraMissingError: Kind(501, "An extra is not installed", "extra_missing"),
    NoReportError: Kind(404, "There is no report", "no_report"),
    StreamMessageError: Kind(422, "Not a message of a stream", "bad_message"),
    StreamIdleError: Kind(408, "Nothing came for too long", "idle"),
    TooManyStreamsError: Kind(503, "Too many streams", "too_many_streams", retry_after_s=10),
    InferenceRequestError: Kind(422, "The tensors cannot be used", "bad_inference_request"),
    BodyEncodingError: Kind(415, "A compressed body", "bad_content_encoding"),
    NotReadyError: Kind(503, "Not ready yet", "not_ready", retry_after_s=2),
    KeyMissingError: Kind(401, "A key is wanted", "key_missing"),
    KeyUnknownError: Kind(401, "The key is not known", "key_unknown"),
    ScopeMissingError: Kind(403, "The key is not for this", "scope_missing"),
    ForeignOriginError: Kind(403, "A page of elsewhere", "foreign_origin"),
    WrongHostError: Kind(421, "Not the name of this service", "wrong_host"),
    RateLimitError: Kind(429, "Too many requests", "rate_limited"),
    TooSlowError: Kind(408, "Too slow", "too_slow"),
    RefusedError: Kind(400, "No valid request", "bad_request"),
    TargetTooLongError: Kind(414, "The path is too long", "target_too_long"),
    HeadTooLargeError: Kind(431, "The headers are too large", "head_too_large"),
    TooManyConnectionsError: Kind(
        503, "Too many connections", "too_many_connections", retry_after_s=5
    ),
    Exception: Kind(
        500,
        "Unexpected error",
        "internal",
        detail="The service made a mistake; its log has the details under this request_id.",
    ),
}


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
    """What was seen, and what is wanted."""
    code: str
    """The kind of problem, for programs."""
    request_id: str = ""
    """As in the X-Request-ID header."""


class InferenceProblem(Problem):
    """An error under /v2, for clients of problem details and of the Open Inference Protocol."""

    error: str
    """``detail`` again, where the protocol wants it."""


def kind_of(error: Exception) -> Kind:
    """Find the kind of an error through its class tree."""
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def problem_of(error: Exception) -> Problem:
    """Describe an error that met no request of its own: an item among many."""
    kind = kind_of(error)
    return describe(kind, kind.detail or str(error))


def describe(kind: Kind, detail: str, **more: str) -> Problem:
    """Describe one error of a kind; ``more`` may hold the request's id."""
    return Problem(
        type=f"urn:nnpm:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=kind.code,
        **more,
    )


log = logging.getLogger("nnpm")


def install(app: FastAPI) -> None:
    """Answer every error of an app with a problem: ours, the frameworks', unexpected ones."""
    app.add_exception_handler(NnpmError, _on_error)
    app.add_exception_handler(Exception, _on_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def refuse(scope: Scope, receive: Receive, send: Send, error: NnpmError) -> None:
    """Answer a request, or the handshake of a WebSocket, with an error: for middleware."""
    response = await _on_error(HTTPConnection(scope), error)
    await response(scope, receive, send)


def _respond(
    request: HTTPConnection, kind: Kind, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    request_id = getattr(request.state, "request_id", "")
    request.state.error_code = kind.code
    extra = {**(headers or {}), **common_headers(request_id)}
    if kind.retry_after_s is not None:
        extra["Retry-After"] = str(kind.retry_after_s)
    problem = describe(kind, detail, request_id=request_id)
    if request.scope["path"].split("/", 2)[1:2] == ["v2"]:
        problem = InferenceProblem(**problem.model_dump(), error=detail)
    return Response(problem.model_dump_json(), kind.status, extra, MEDIA_TYPE)


async def _on_error(request: HTTPConnection, error: Exception) -> Response:
    kind = kind_of(error)
    if kind.status >= 500 and kind.detail is not None and isinstance(error, NnpmError):
        log.error("request %s: %s", request.state.request_id, error)
    headers = error.headers if isinstance(error, RefusedError) else None
    return _respond(request, kind, kind.detail or str(error), headers)


async def _on_disconnect(request: Request, _: Exception) -> Response:
    kind = Kind(400, "The upload broke off", "disconnected")
    return _respond(request, kind, "The connection closed before the body was complete.")


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(map(_sentence, error.errors()))
    return _respond(request, KINDS[ParameterError], detail)


def _sentence(error: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"][1:]) or str(error["loc"][0])
    message = str(error["msg"])
    if error["type"] == "value_error":  # of a validator of ours: a sentence already
        return message.removeprefix("Value error, ")
    return f"{name}: {message[:1].lower()}{message[1:]}, not {str(error['input'])[:64]!r}."


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, NnpmError):  # FastAPI's word for one of ours, met in the body
        return await _on_error(request, error.__cause__)
    if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI, of JSON that is not even text
        detail = "The body cannot be read; JSON in UTF-8 is wanted."
        return _respond(request, KINDS[ParameterError], detail)
    phrase = HTTPStatus(error.status_code).phrase
    kind = Kind(error.status_code, phrase, re.sub(r"\W+", "_", phrase.lower()))
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = allowed_methods(request.app, request.scope["path"])
        headers = {"Allow": allowed} if allowed else headers
    return _respond(request, kind, _http_detail(request, error, headers), headers)


def _http_detail(request: Request, error: HTTPException, headers: Mapping[str, str] | None) -> str:
    match error.status_code:
        case 404:
            return f"There is nothing at {request.scope['path'][:128]}; /docs lists what there is."
        case 405:
            allowed = (headers or {}).get("Allow", "another method")
            return f"{request.method} is not for {request.scope['path'][:128]}; use {allowed}."
        case _:
            return str(error.detail)
