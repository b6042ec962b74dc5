"""The OpenAPI document: what FastAPI cannot derive by itself."""

from typing import Any

from fastapi import FastAPI

from ..jobs.folder import JobRequest
from ..predict.oip import InferRequest
from .adaptation import FolderRequest
from .errors import KINDS, MEDIA_TYPE, InferenceProblem, Problem
from .middleware.access import OPEN_PATHS

AUDIO_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": (
                            "WAV, FLAC, MP3, Ogg (Opus or Vorbis), AIFF, AU or CAF; with the "
                            "extra 'media' also MP4, M4A, WebM, AMR, WMA and the sound of videos."
                        ),
                    }
                },
            }
        },
        "audio/*": {"schema": {"type": "string", "format": "binary"}},
        "video/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
"""Request body of a route that takes one recording."""

BATCH_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "Recordings, as for /predict.",
                    }
                },
            }
        }
    },
}
"""Request body of a route that takes many recordings."""

_ADAPT_FIELDS = JobRequest.model_json_schema()["properties"]
_FILE = {"type": "string", "format": "binary"}

ADAPT_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": FolderRequest.model_json_schema(),
            "example": {"folder": "/data/urdu", "language": "ur"},
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "archive": {**_FILE, "description": "zip, tar, tar.gz or tar.zst."},
                    "files": {"type": "array", "items": _FILE, "description": "Recordings."},
                    **_ADAPT_FIELDS,
                },
                "oneOf": [{"required": ["archive"]}, {"required": ["files"]}],
            }
        },
    },
}
"""Request body of POST /adapt."""

REQUEST_ID = "0b7e4c9c-6f0a-4a52-9f1e-7d8f2f0a3c11"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route may answer."""
    return {status: _response(status, Problem) for status in statuses}


def inference_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route under /v2 may answer."""
    return {status: _response(status, InferenceProblem) for status in (422, *statuses)}


def _response(status: int, schema: type[Problem]) -> dict[str, Any]:
    kinds = {kind.code: kind for kind in KINDS.values() if kind.status == status}
    titles = "; ".join(kind.title for kind in kinds.values())
    response: dict[str, Any] = {
        "description": titles,
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": f"#/components/schemas/{schema.__name__}"},
                "examples": {
                    kind.code: {
                        "value": {
                            "type": f"urn:nnpm:problem:{kind.code}",
                            "title": kind.title,
                            "status": status,
                            "detail": kind.detail or "The number seen, and the number wanted.",
                            "code": kind.code,
                            "request_id": REQUEST_ID,
                            **({"error": "detail again."} if schema is InferenceProblem else {}),
                        }
                    }
                    for kind in kinds.values()
                },
            }
        },
    }
    if any(kind.retry_after_s is not None for kind in kinds.values()):
        response["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
        }
    return response


_EVERYWHERE = (400, 403, 408, 414, 421, 429, 431, 503)
"""Statuses that any request may meet before its route sees it; 401 where there are keys."""


class Documented(FastAPI):
    """An app whose document knows the schema of problems, and how keys are sent.

    Args:
        keyed: requests need a key.
        **arguments: of FastAPI.
    """

    def __init__(self, *, keyed: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._keyed = keyed

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        if not self.openapi_schema:
            document = super().openapi()
            components = document.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            for model in (Problem, InferenceProblem, InferRequest):
                found = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(found.pop("$defs", {}))
                schemas[model.__name__] = found
            for path, operations in document["paths"].items():
                of = inference_problems if path.startswith("/v2") else problems
                everywhere = of(*_EVERYWHERE, *([401] if self._keyed else []))
                for operation in operations.values():
                    responses = operation["responses"]
                    for status, response in everywhere.items():
                        responses.setdefault(str(status), response)
                    if "requestBody" in operation:
                        responses.setdefault("413", of(413)[413])
                    if path in OPEN_PATHS:
                        responses.pop("401", None)
                        if self._keyed:
                            operation["security"] = []
            if self._keyed:
                components["securitySchemes"] = {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                }
                document["security"] = [{"bearer": []}, {"header": []}]
        assert self.openapi_schema is not None
        return self.openapi_schema
