"""Checks that hold for every error answer."""

from typing import Any

from nnpm import __version__


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check that a response is a problem of this kind, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    body: dict[str, Any] = response.json()
    fields = {"type", "title", "status", "detail", "code", "request_id"}
    assert set(body) - {"error"} == fields  # error: under /v2
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"].endswith(code)
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    no_leak(response.text)
    no_leak(str(response.headers))
    return body


LEAKS = (
    "traceback", "object at 0x", "/tmp", "site-packages", ".py", "line ", "starlette", "fastapi",
    "pydantic", "uvicorn", "h11", "python", "multipart/0", "numpy", "onnx", "libsndfile", "ffmpeg",
    "sqlalchemy", "sqlite", "psycopg", "limits/", __version__,
)  # fmt: skip


def no_leak(text: str) -> None:
    """Check that an answer names no path, stack, library or version."""
    for leak in LEAKS:
        assert leak not in text.lower(), (leak, text)
