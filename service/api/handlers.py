"""Every error of an app becomes a problem: ours, the frameworks', unexpected ones."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.errors import RefusedError
from service.api.methods import allowed_methods
from service.api.observe import common_headers
from service.api.problems import KINDS, MEDIA_TYPE, InferenceProblem, Kind, describe, kind_of
from service.inference.errors import NnpmError, ParameterError

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
