"""Who may do what, on a service that asks for keys and on one that does not."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from nnpm.service.api.app import create_app
from nnpm.service.api.middleware.access import Caller, requires
from nnpm.service.keys import KeyFile
from nnpm.service.settings import Settings
from tests.support.adaptation import ended
from tests.support.keys import make_keys
from tests.support.problems import problem

ROUTES = [
    ("POST", "/predict", "predict"),
    ("POST", "/predict/batch", "predict"),
    ("POST", "/v2/models/default/infer", "predict"),
    ("POST", "/v2/models/default/versions/1/infer", "predict"),
    ("GET", "/v2/models/default", "predict"),
    ("GET", "/models", "predict"),
    ("GET", "/models/default", "predict"),
    ("GET", "/models/default/1", "predict"),
    ("POST", "/models/default/promote", "admin"),
    ("POST", "/models/default/rollback", "admin"),
    ("POST", "/models/default/shadow", "admin"),
    ("DELETE", "/models/default/1", "admin"),
    ("POST", "/adapt", "adapt"),
    ("GET", "/adapt", "adapt"),
    ("GET", "/adapt/x", "adapt"),
    ("GET", "/adapt/x/events", "adapt"),
    ("GET", "/adapt/x/report", "adapt"),
    ("GET", "/adapt/x/clips/0", "adapt"),
    ("GET", "/adapt/folders", "adapt"),
    ("DELETE", "/adapt/x", "adapt"),
]
OPEN = [
    "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/docs",
    "/docs/start.js", "/openapi.json", "/", "/nnpm.js", "/static/index.html",
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keys(path: Path) -> dict[str, Any]:
    return make_keys(path)


@pytest.fixture
def keyed(serve: Callable[..., TestClient], path: Path, keys: dict[str, Any]) -> TestClient:
    return serve(api_keys_file=path)


def scopes_of(dependant: Dependant) -> set[str]:
    found = set()
    for part in dependant.dependencies:
        if getattr(part.call, "__qualname__", "").startswith("requires."):
            found.add(str(part.call.__doc__).rstrip(".").rpartition(" ")[2])
        found |= scopes_of(part)
    return found


def test_every_route_wants_one_scope_or_is_known_to_be_open(models: Path) -> None:
    """A new route that forgets its scope fails here."""
    app = create_app(Settings(models=models))
    wanted, open_paths = {}, set()
    for route in routes_of(app):
        scopes = scopes_of(route.dependant)
        if scopes:
            (wanted[route.path, getattr(route, "name", "")],) = scopes
        else:
            open_paths.add(route.path)
    assert open_paths == {
        *("/health/live", "/health/ready", "/metrics", "/docs", "/docs/{name}"),
        *("/", "/nnpm.js", "/static/{path:path}", "/asyncapi.json"),
        "/tickets",  # whose scope is that of what the ticket opens
        *("/v2", "/v2/health/live", "/v2/health/ready"),
    }
    assert set(wanted.values()) == {"predict", "adapt", "admin"}


def routes_of(router: Any) -> Iterator[APIRoute | APIWebSocketRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute | APIWebSocketRoute):
            yield route
        elif hasattr(route, "effective_candidates"):
            yield from (one.original_route for one in route.effective_candidates())


@pytest.mark.parametrize(("method", "url", "scope"), ROUTES)
def test_a_key_opens_what_it_is_for(
    keyed: TestClient, keys: dict[str, Any], method: str, url: str, scope: str
) -> None:
    missing = keyed.request(method, url)
    problem(missing, 401, "key_missing")
    assert missing.headers["www-authenticate"] == 'Bearer realm="nnpm"'
    for name in ("predict", "adapt", "metrics", "admin"):
        # A body that is no JSON: whoever may not, is told that first.
        answer = keyed.request(method, url, headers=keys[name])
        if name in (scope, "admin"):
            assert answer.status_code not in (401, 403), (name, answer.text)
            continue
        if answer.status_code == 422 and method == "POST":  # FastAPI reads JSON before it asks
            answer = keyed.request(method, url, headers=keys[name], json={"version": "1"})
        detail = problem(answer, 403, "scope_missing")["detail"]
        assert f"requires {scope}" in detail
        assert (name if name != "metrics" else "none") in detail
        assert f'scope="{scope}"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("url", OPEN)
def test_some_pages_want_no_key(keyed: TestClient, url: str) -> None:
    assert keyed.get(url).status_code == 200


def test_metrics_want_any_key(keyed: TestClient, keys: dict[str, Any]) -> None:
    problem(keyed.get("/metrics"), 401, "key_missing")
    assert "nnpm_requests" in keyed.get("/metrics", headers=keys["metrics"]).text


def test_what_is_not_there_wants_a_key_too(keyed: TestClient) -> None:
    for url in ("/nowhere", "/docsx", "/health", "/health/livex", "/openapi.json/"):
        problem(keyed.get(url), 401, "key_missing")


def test_a_key_travels_in_two_headers(keyed: TestClient, keys: dict[str, Any], clip: bytes) -> None:
    key = keys["predict"]["Authorization"].removeprefix("Bearer ")
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer  {key} "},
        {"X-API-Key": key},
        {"X-API-Key": key, "Authorization": "Basic dTpw"},  # of a proxy
    ):
        answer = keyed.post("/predict", content=clip, headers=headers)
        assert answer.status_code == 200, headers
    for headers in (
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {key}x"},
        {"Authorization": f"Bearer {key[:-1]}"},
        {"Authorization": "Bearer wrong", "X-API-Key": key},
        {"X-API-Key": "x" * 5000},
    ):
        answer = keyed.post("/predict", content=clip, headers=headers)
        problem(answer, 401, "key_unknown")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert key not in answer.text
    for headers in ({"Authorization": "Basic dTpw"}, {"Authorization": key}):
        problem(keyed.post("/predict", content=clip, headers=headers), 401, "key_missing")
    problem(keyed.post("/predict", params={"key": key, "api_key": key}), 401, "key_missing")


def test_a_change_of_the_file_is_seen_within_two_seconds(
    keyed: TestClient, path: Path, keys: dict[str, Any]
) -> None:
    assert keyed.get("/models", headers=keys["predict"]).status_code == 200
    file = KeyFile(path)
    file.revoke("predict")
    new = {"X-API-Key": file.create("new", frozenset({"predict"}))[0]}
    changed_s = time.monotonic()
    while keyed.get("/models", headers=keys["predict"]).status_code == 200:
        assert time.monotonic() - changed_s < 3
        time.sleep(0.05)
    assert keyed.get("/models", headers=new).status_code == 200
    path.write_text("{")
    time.sleep(1.1)
    assert keyed.get("/models", headers=new).status_code == 200


def test_jobs_and_idempotency_keys_are_of_a_key(
    start: Callable[..., TestClient], path: Path, tmp_path: Path
) -> None:
    file = KeyFile(path)
    first, second = (
        {"X-API-Key": file.create(name, frozenset({"adapt"}))[0], "Idempotency-Key": "same"}
        for name in ("first", "second")
    )
    admin = {"X-API-Key": file.create("boss", frozenset({"admin"}))[0]}
    client = start(api_keys_file=path)
    client.headers.update(first)
    request = {"folder": str(tmp_path / "audio"), "language": "ur"}
    job = client.post("/adapt", json=request).json()
    assert client.post("/adapt", json=request).json()["id"] == job["id"]
    other = client.post("/adapt", json={**request, "language": "de"}, headers=second)
    assert other.status_code == 202  # with the same key of another, this would be 409
    theirs = other.json()
    assert theirs["id"] != job["id"]

    for method, tail in (("GET", ""), ("GET", "/events"), ("GET", "/report"), ("DELETE", "")):
        answer = client.request(method, f"/adapt/{theirs['id']}{tail}")
        problem(answer, 404, "unknown_job")
    assert [one["id"] for one in client.get("/adapt").json()["jobs"]] == [job["id"]]
    everything = client.get("/adapt", headers=admin).json()["jobs"]
    assert {one["id"] for one in everything} == {job["id"], theirs["id"]}
    assert client.get(f"/adapt/{theirs['id']}", headers=admin).status_code == 200

    text, _ = file.create("first", None, rotate=True)  # the jobs are of the name
    time.sleep(1.1)
    assert client.get(f"/adapt/{job['id']}", headers={"X-API-Key": text}).status_code == 200
    ended(client, job)


def test_an_open_service_takes_everybody_for_everything(client: TestClient, clip: bytes) -> None:
    assert client.post("/predict", content=clip).status_code == 200
    assert client.get("/adapt", headers={"X-API-Key": "whatever"}).status_code == 200


def test_websockets_want_keys_and_scopes_too(models: Path, path: Path, keys: Any) -> None:
    app = create_app(Settings(models=models, api_keys_file=path))
    routes = APIRouter()

    @routes.websocket("/ws")
    async def whoever(ws: WebSocket, caller: Caller = Depends(requires("predict"))) -> None:  # noqa: B008
        await ws.accept()
        await ws.send_text(caller.name)
        await ws.close()

    app.include_router(routes)
    client = TestClient(app)
    with client.websocket_connect("/ws", headers=keys["predict"]) as ws:
        assert ws.receive_text() == "predict"
    for headers, status, code in (
        ({}, 401, "key_missing"),
        ({"X-API-Key": "wrong"}, 401, "key_unknown"),
        (keys["adapt"], 403, "scope_missing"),
        ({**keys["predict"], "Origin": "https://evil.example"}, 403, "foreign_origin"),
        ({**keys["predict"], "Host": "evil.example"}, 421, "wrong_host"),
    ):
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("/ws", headers=headers),
        ):
            pass
        assert denied.value.status_code == status
        problem(denied.value, status, code)


def test_the_document_says_how_keys_are_sent(keyed: TestClient, client: TestClient) -> None:
    document = keyed.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert document["components"]["securitySchemes"].keys() == {"bearer", "header"}
    assert "401" in document["paths"]["/predict"]["post"]["responses"]
    live = document["paths"]["/health/live"]["get"]
    assert live["security"] == []
    assert "401" not in live["responses"]
    assert "security" not in client.get("/openapi.json").json()
