"""The OpenAPI document: what FastAPI cannot derive by itself; and /stream as AsyncAPI."""

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from ..inference.answer import Segment
from ..predict.live import End, PcmHello, WebmHello
from ..predict.oip import InferRequest
from ..predict.schemas import PredictAnswer
from .errors import MEDIA_TYPE, InferenceProblem, Kind, Problem, all_kinds
from .headers import hide_ticket, without_prefix

FILE = {"type": "string", "format": "binary"}
"""Schema of a file in a request body."""

_REQUEST_ID = "0b7e4c9c-6f0a-4a52-9f1e-7d8f2f0a3c11"
_EVERYWHERE = (400, 403, 408, 414, 421, 429, 431, 503)
"""Statuses that any request may meet before its route sees it; 401 where there are keys."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route may answer."""
    return {status: _response(status, Problem) for status in statuses}


def inference_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route under /v2 may answer; 422 is always among them."""
    return {status: _response(status, InferenceProblem) for status in (422, *statuses)}


def _response(status: int, schema: type[Problem]) -> dict[str, Any]:
    kinds = [kind for kind in all_kinds() if kind.status == status]
    response: dict[str, Any] = {
        "description": "; ".join(kind.title for kind in kinds),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": f"#/components/schemas/{schema.__name__}"},
                "examples": {kind.code: {"value": _example(kind, schema)} for kind in kinds},
            }
        },
    }
    if any(kind.retry_after_s is not None for kind in kinds):
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds after which to try again.",
                "schema": {"type": "integer"},
            }
        }
    return response


def _example(kind: Kind, schema: type[Problem]) -> dict[str, Any]:
    example = {
        "type": f"urn:nnpm:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.detail or "What was sent, what is allowed, and what to do.",
        "code": kind.code,
        "request_id": _REQUEST_ID,
    }
    return example | ({"error": example["detail"]} if schema is InferenceProblem else {})


DESCRIPTION = """\
Recognises emotion in speech, and adapts to languages without labels.

Send a recording to `POST /predict`; a microphone to `WS /stream`, which AsyncAPI describes
(`/asyncapi.json`); unlabelled recordings to `POST /adapt`. Every error is
`application/problem+json`; its `code` is stable. A service with keys takes them as
`Authorization: Bearer …` or `X-API-Key: …`.
"""

TAGS = [
    {"name": "predict", "description": "Recordings in, emotions with calibrated confidence out."},
    {"name": "adapt", "description": "Jobs that adapt a model to a language, without labels."},
    {"name": "models", "description": "Versions, and the aliases that choose which one answers."},
    {"name": "tickets", "description": "What lets a page in where a browser can send no key."},
    {
        "name": "open inference protocol",
        "description": "Tensors, for clients of KServe and Triton.",
    },
    {"name": "health", "description": "For probes."},
    {"name": "metrics", "description": "For Prometheus."},
    {"name": "page", "description": "The page, and where to find what."},
]


def operation_id(route: APIRoute) -> str:
    """Name an operation as generated clients should: predict, adapt, list_jobs."""
    return route.name


class DocumentedApp(FastAPI):
    """An app whose document knows the schema of problems, how keys are sent, and its prefix.

    A proxy may serve the app below a prefix, and take it off or leave it on: all that is inside
    sees the path without it, and addresses that it writes have it. A ticket is taken out of the
    query before anything can log it.

    Args:
        keyed: requests need a key.
        open_paths: paths that need none.
        prefix: such as ``/emotion``; empty for none.
        **arguments: of FastAPI.
    """

    def __init__(
        self, *, keyed: bool, open_paths: Collection[str], prefix: str, **arguments: Any
    ) -> None:
        servers = [{"url": prefix}] if prefix else None
        super().__init__(servers=servers, **arguments)
        self._prefix = prefix
        self._keyed = keyed
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or a WebSocket, after taking off the prefix."""
        if self._prefix and scope["type"] in ("http", "websocket"):
            path = without_prefix(scope["path"], self._prefix)
            # not root_path: Starlette would take that off again where a route begins with it
            scope = {**scope, "path": path, "app_root_path": self._prefix}
        if b"ticket=" in scope.get("query_string", b""):
            scope = hide_ticket(scope)
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        if not self.openapi_schema:
            document = super().openapi()
            self._add_schemas(document)
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    self._add_responses(path, operation)
                    _add_example(operation)
                    for parameter in operation.get("parameters", ()):
                        parameter["schema"] = _not_null(parameter["schema"])
            if self._keyed:
                document["components"]["securitySchemes"] = {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                }
                document["security"] = [{"bearer": []}, {"header": []}]
        assert self.openapi_schema is not None
        return self.openapi_schema

    def _add_schemas(self, document: dict[str, Any]) -> None:
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (Problem, InferenceProblem, InferRequest):
            found = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(found.pop("$defs", {}))
            schemas[model.__name__] = found

    def _add_responses(self, path: str, operation: dict[str, Any]) -> None:
        of = inference_problems if path.startswith("/v2") else problems
        responses = operation["responses"]
        for status, response in of(*_EVERYWHERE, *([401] if self._keyed else [])).items():
            responses.setdefault(str(status), response)
        if "requestBody" in operation:
            responses.setdefault("413", of(413)[413])
        if path in self._open_paths:
            responses.pop("401", None)
            if self._keyed:
                operation["security"] = []


EXAMPLES = Path(__file__).with_name("templates") / "examples.json"
"""Answers of a real service by operation; scripts/examples.py writes them."""


@cache
def examples() -> dict[str, Any]:
    """Read the answers of a real service: for each operation its status and its body."""
    found: dict[str, Any] = json.loads(EXAMPLES.read_bytes())
    return found


def _add_example(operation: dict[str, Any]) -> None:
    example = examples().get(operation["operationId"])
    if example is not None:
        content = operation["responses"][str(example["status"])]["content"]
        content["application/json"]["example"] = example["body"]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Take null out of a parameter's schema: what is left out of a URL is not null."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**kinds[0], **rest}


_STREAM: dict[str, tuple[str, Any, str]] = {
    "hello": ("send", PcmHello, "Sent first: the format of the audio, and how to score it."),
    "hello_webm": ("send", WebmHello, "Sent first, where WebM follows."),
    "audio": ("send", None, "Binary: whole frames of 16-bit samples, or the next piece of WebM."),
    "end": ("send", End, "Sent last."),
    "segment": ("receive", Segment, "A turn has ended, or a window is complete."),
    "final": ("receive", PredictAnswer, "The answer for the whole; then the service closes."),
    "error": ("receive", Problem, "Instead of what follows; then the service closes."),
}


def stream_document(version: str) -> dict[str, Any]:
    """Describe the messages of WS /stream, as AsyncAPI 3.0 from the client's side.

    Args:
        version: of this service.
    """
    schemas: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for name, (action, model, summary) in _STREAM.items():
        message: dict[str, Any] = {"name": name, "title": name, "summary": summary}
        if model is None:
            message |= {"contentType": "application/octet-stream"}
            message["payload"] = {"type": "string", "format": "binary"}
        else:
            mode: Any = "validation" if action == "send" else "serialization"
            schema = TypeAdapter(model).json_schema(
                ref_template="#/components/schemas/{model}", mode=mode
            )
            schemas |= schema.pop("$defs", {})
            if action == "receive":  # each says in `type` what it is
                left_out = {"type", "speaker"} if name == "segment" else {"type"}
                fields = {k: v for k, v in schema["properties"].items() if k not in left_out}
                schema["properties"] = {"type": {"const": name}, **fields}
                required = [k for k in schema.get("required", ()) if k not in left_out]
                schema["required"] = ["type", *required]
            schemas[f"{name}_message"] = schema
            message |= {"contentType": "application/json"}
            message["payload"] = {"$ref": f"#/components/schemas/{name}_message"}
        messages[name] = message

    def of(action: str) -> dict[str, Any]:
        names = [name for name, (how, *_) in _STREAM.items() if how == action]
        refs = [{"$ref": f"#/channels/stream/messages/{name}"} for name in names]
        return {"action": action, "channel": {"$ref": "#/channels/stream"}, "messages": refs}

    ticket = {"type": "string", "description": "Stands for a key: POST /tickets."}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "nnpm",
            "version": version,
            "description": "Emotion in speech while it is spoken: a segment per turn or window, "
            "and an answer at the end.",
            "license": {"name": "Apache License 2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "stream": {
                "address": "/stream",
                "title": "One recording",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"query": {"type": "object", "properties": {"ticket": ticket}}}},
            }
        },
        "operations": {"record": of("send"), "listen": of("receive")},
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
