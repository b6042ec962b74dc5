"""What every error answer has to be."""

from typing import Any


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check that a response is a problem of this kind, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"].endswith(code)
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    for leak in ("Traceback", "object at 0x", "/tmp", "site-packages"):
        assert leak not in response.text
    return body
