"""Health, metrics, and the pages: /, nnpm.js and /docs, which load nothing from other sites."""

import asyncio
import gzip
import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from .... import __version__
from ...inference.audio.process import decoder_obstacle
from ..errors import NotReadyError
from ..openapi import problems, stream_document
from ..services import Off, Services, services_of

router = APIRouter()

TheServices = Annotated[Services, Depends(services_of)]


class Health(BaseModel):
    """The state of a service that works."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["live", "ready"]
    warnings: list[str] = []
    """Versions that cannot be loaded, and which answer instead; left out if there are none."""
    off: list[Off] = []
    """What this service does not do; left out if there is nothing."""


@router.get("/health/live", tags=["health"], response_model_exclude_defaults=True)
async def live() -> Health:
    """Report that the process runs."""
    return Health(status="live")


@router.get(
    "/health/ready",
    tags=["health"],
    responses=problems(503),
    response_model_exclude_defaults=True,
)
async def ready(services: TheServices) -> Health:
    """Report whether recordings can be answered.

    The default model has to be loaded and to have passed its golden probe; and if a process that
    decodes audio could not be started, another try has to succeed.
    """
    if (obstacle := await _obstacle(services)) is not None:
        raise NotReadyError(obstacle)
    return Health(status="ready", warnings=services.serving.warnings(), off=services.off)


async def _obstacle(services: Services) -> str | None:
    if not services.readiness.ready:
        return services.readiness.obstacle
    return await asyncio.to_thread(decoder_obstacle)


@router.get("/metrics", tags=["metrics"], response_class=PlainTextResponse)
def metrics(services: TheServices) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)


class Home(BaseModel):
    """What this service is, and where to find what it does."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Literal["nnpm"] = "nnpm"
    version: str = __version__
    ready: bool
    """Whether recordings can be answered."""
    obstacle: str | None
    """Why not; null if they can."""
    keys: bool
    """Whether requests need an API key."""
    warnings: list[str]
    """Versions that cannot be loaded, and which answer instead."""
    off: list[Off]
    """What this service does not do, and how its operator changes that."""
    links: dict[str, str]
    """Paths by what they are for, relative to this document."""


_LINKS = {
    "page": "./",
    "docs": "docs",
    "openapi": "openapi.json",
    "asyncapi": "asyncapi.json",
    "javascript": "nnpm.js",
    "ready": "health/ready",
    "predict": "predict",
    "stream": "stream",
    "adapt": "adapt",
    "models": "models",
}

STATIC = Path(__file__).resolve().parents[1] / "static"
"""The page's files; index.html is ``GET /``, and nnpm.js is also at the root."""

# Blobs are what the browser itself made: recordings to play. The digest is
# that of the style which wavesurfer.js writes into its shadow root; a browser test fails when a new
# release, or another height in waveform.js, changes it. No script and no other style is inline.
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; worker-src 'self'; media-src 'self' blob:; "
    "img-src 'self' data: blob:; "
    "style-src 'self' 'sha256-fF0LBso7Nz75zaFRDBUefBDvPe19hjaiDnnc8lt+2Js='; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": _PAGE_POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    # A copy is used only after this service has said that it is the current one.
    "Cache-Control": "no-cache",
}
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml",
    ".json": "application/json", ".png": "image/png", ".woff2": "font/woff2", ".txt": "text/plain",
    ".md": "text/markdown", ".webmanifest": "application/manifest+json",
}  # fmt: skip
_COMPRESSED_FROM_BYTES = 1024


@router.get(
    "/",
    response_model=Home,
    tags=["page"],
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def home(request: Request, services: TheServices) -> Response:
    """Give the page to browsers; to others, what this service is and where to find things."""
    if "text/html" in request.headers.get("accept", ""):
        path, prefix = request.scope.get("raw_path", b"/"), services.settings.root_path
        if prefix and path == prefix.encode():  # else the page's links would lead beside it
            return RedirectResponse(f"{prefix}/", headers={"Vary": "Accept"})
        return await asyncio.to_thread(_file, request, "index.html")
    obstacle = await _obstacle(services)
    document = Home(
        ready=obstacle is None,
        obstacle=obstacle,
        keys=services.settings.api_keys_file is not None,
        warnings=services.serving.warnings(),
        off=services.off,
        links=_LINKS,
    )
    return Response(
        document.model_dump_json(), headers={"Vary": "Accept"}, media_type="application/json"
    )


@router.get("/nnpm.js", include_in_schema=False)
def javascript(request: Request) -> Response:
    """Return the JavaScript module of this service."""
    return _file(request, "nnpm.js")


@router.get("/static/{path:path}", include_in_schema=False)
def static(request: Request, path: str) -> Response:
    """Return a file of the page."""
    return _file(request, path)


def _file(request: Request, name: str) -> Response:
    """Answer with a file of the page, or with 304 if the client has it."""
    try:
        path = (STATIC / name).resolve()
        modified = path.stat().st_mtime_ns
    except (OSError, ValueError):
        raise HTTPException(404) from None
    if not (path.is_relative_to(STATIC) and path.is_file()):
        raise HTTPException(404)
    plain, compressed, digest = _read(path, modified)
    packed = compressed is not None and "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{digest}-gzip"' if packed else f'"{digest}"'
    vary = "Accept, Accept-Encoding" if name == "index.html" else "Accept-Encoding"
    headers = {**_PAGE_HEADERS, "ETag": etag, "Vary": vary}
    known = request.headers.get("if-none-match", "").replace("W/", "")
    if known == "*" or etag in {one.strip() for one in known.split(",")}:
        return Response(status_code=304, headers=headers)
    kind = _TYPES.get(path.suffix, "text/plain" if not path.suffix else "application/octet-stream")
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(compressed if packed else plain, headers=headers, media_type=kind)


@lru_cache(256)
def _read(path: Path, modified: int) -> tuple[bytes, bytes | None, str]:  # noqa: ARG001
    """A file, compressed too if that makes it smaller, and its digest; read again if it changes."""
    plain = path.read_bytes()
    packed = gzip.compress(plain, mtime=0) if len(plain) >= _COMPRESSED_FROM_BYTES else plain
    digest = hashlib.sha256(plain).hexdigest()[:32]
    return plain, packed if len(packed) < len(plain) else None, digest


_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#page", deepLinking: true, tryItOutEnabled: true,
});
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nnpm</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<noscript>This page needs scripts; see <a href="openapi.json">/openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@router.get("/asyncapi.json", include_in_schema=False)
def asyncapi() -> Response:
    """Return the description of the messages of WS /stream."""
    return JSONResponse(stream_document(__version__))


@router.get("/docs", include_in_schema=False)
async def page() -> Response:
    """Return the page of /docs."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/{name}", include_in_schema=False)
def asset(name: str) -> Response:
    """Return a file that the page needs."""
    if name == "start.js":
        return Response(_START, media_type="text/javascript")
    if name not in _ASSETS:
        raise HTTPException(404)
    return Response(
        _content(name), media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"}
    )


@lru_cache(len(_ASSETS))
def _content(name: str) -> bytes:
    return (files("fastapi_swagger") / "resources" / name).read_bytes()
