"""Health, metrics and /docs, whose page loads nothing from other sites."""

import asyncio
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...inference.audio.process import decoder_obstacle
from ..errors import NotReadyError
from ..openapi import problems
from ..services import Services, services_of

router = APIRouter()


class Health(BaseModel):
    """The state of a service that works."""

    status: Literal["live", "ready"]
    warnings: list[str] = []
    """Versions that cannot be loaded, and which answer instead; left out if there are none."""


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
async def ready(services: Annotated[Services, Depends(services_of)]) -> Health:
    """Report whether recordings can be answered.

    The default model has to be loaded and to have passed its golden probe; and if a process that
    decodes audio could not be started, another try has to succeed.
    """
    if not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
    if (obstacle := await asyncio.to_thread(decoder_obstacle)) is not None:
        raise NotReadyError(obstacle)
    return Health(status="ready", warnings=services.serving.warnings())


@router.get("/metrics", tags=["metrics"], response_class=PlainTextResponse)
def metrics(services: Annotated[Services, Depends(services_of)]) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)


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


@router.get("/docs", include_in_schema=False)
async def page() -> Response:
    """Return the page of /docs."""
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


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
