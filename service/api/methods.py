"""HEAD wherever there is GET, and the methods that a path allows."""

from functools import lru_cache
from http import HTTPMethod
from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Answers HEAD as GET without the body, as monitors and caches expect.

    Args:
        app: the application inside; it never sees HEAD.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; of a HEAD, the answer ends with its headers."""
        if scope["type"] != "http" or scope["method"] != HTTPMethod.HEAD:
            await self._app(scope, receive, send)
            return

        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:  # a stream of events hears by this that nobody listens
                ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app({**scope, "method": HTTPMethod.GET.value}, receive, send_head)


def allowed_methods(app: FastAPI, path: str) -> str | None:
    """The methods of a path as ``Allow`` lists them; None for one that the document lacks.

    Starlette names those of one route only, and several routes may share a path.
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
