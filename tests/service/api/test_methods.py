"""Methods that a path has, and what is said of those that it has not."""

import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from tests.support.adaptation import zipped
from tests.support.problems import problem


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/models", "/docs"])
def test_head_is_get_without_a_body(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_of_what_is_not_there(client: TestClient) -> None:
    answer = client.head("/models/nope")
    assert (answer.status_code, answer.content) == (404, b"")


def test_head_of_events_ends_at_once(start: Callable[..., TestClient]) -> None:
    client = start(adapt_workers=0)
    files = {"archive": ("x.zip", zipped("1.wav"))}
    job = client.post("/adapt", files=files, data={"language": "ur"}).json()
    began = time.monotonic()
    answer = client.head(f"/adapt/{job['id']}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/adapt", "GET, HEAD, POST"),
        ("PATCH", "/adapt/1", "DELETE, GET, HEAD"),
        ("PUT", "/models/default/1", "DELETE, GET, HEAD"),
        ("PUT", "/models/default/promote", "POST"),
        ("GET", "/predict", "POST"),
        ("HEAD", "/predict", "POST"),
        ("POST", "/health/live", "GET, HEAD"),
    ],
)
def test_allow_lists_every_method_of_a_path(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        assert allowed in problem(answer, 405, "method_not_allowed")["detail"]


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 50_000, b'{"version": ' + b"9" * 9000 + b"}"])
def test_json_that_cannot_be_read_is_422(client: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/models/default/promote", content=body, headers=headers)
    problem(answer, 422, "bad_parameter")
