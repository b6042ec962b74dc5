"""Tickets over HTTP and WebSocket: whom they let in, and where they leave no trace."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import WebSocketDenialResponse

from nnpm.service.api.app import create_app
from nnpm.service.api.tracing import Tracing
from nnpm.service.keys import KeyFile
from nnpm.service.settings import Settings
from tests.support.adaptation import ended
from tests.support.keys import make_keys
from tests.support.problems import problem
from tests.support.servers import wait_until_ready

OWN, APP = "http://testserver", "https://app.example.org"
HELLO = {"sample_rate_hz": 16_000, "channels": 1}
SCOPES = {"stream": "predict", "events": "adapt", "report": "adapt"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keys(path: Path) -> dict[str, Any]:
    return make_keys(path)


@pytest.fixture
def keyed(start: Callable[..., TestClient], path: Path, keys: dict[str, Any]) -> TestClient:
    return start(api_keys_file=path, allowed_origins=APP)


def ticket(client: TestClient, scope: str, headers: dict[str, str], origin: str = OWN) -> str:
    headers = headers | ({"Origin": origin} if origin else {})
    answer = client.post("/tickets", json={"scope": scope}, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert made.keys() == {"ticket", "expires_in_s"}
    assert made["expires_in_s"] == 60
    return str(made["ticket"])


def job_of(client: TestClient, tmp_path: Path, headers: dict[str, str]) -> str:
    asked = {"folder": str(tmp_path / "audio"), "language": "ur"}
    client.headers.update(headers)
    job = ended(client, client.post("/adapt", json=asked).json())
    for name in headers:
        del client.headers[name]
    return str(job["id"])


def stream(client: TestClient, text: str | None, **headers: str) -> dict[str, Any]:
    query = "" if text is None else f"?ticket={text}"
    with client.websocket_connect(f"/stream{query}", headers=headers) as socket:
        socket.send_json(HELLO)
        socket.send_bytes(bytes(32_000))
        socket.send_json({"end": True})
        while (told := socket.receive_json())["type"] == "segment":
            pass
    return dict(told)


def refused(client: TestClient, text: str, **headers: str) -> str:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect(f"/stream?ticket={text}", headers=headers),
    ):
        pass
    return str(problem(denied.value, 401, "ticket_refused")["detail"])


@pytest.mark.smoke
def test_a_page_streams_with_a_ticket(keyed: TestClient, keys: dict[str, Any]) -> None:
    text = ticket(keyed, "stream", keys["predict"])
    assert stream(keyed, text, Origin=OWN)["type"] == "final"
    assert "was used" in refused(keyed, text, Origin=OWN)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_ticket_needs_the_scope_of_what_it_opens(
    keyed: TestClient, keys: dict[str, Any], scope: str
) -> None:
    for name in ("predict", "adapt", "metrics"):
        answer = keyed.post("/tickets", json={"scope": scope}, headers=keys[name])
        if name == SCOPES[scope]:
            assert answer.status_code == 201
        else:
            assert f"requires {SCOPES[scope]}" in problem(answer, 403, "scope_missing")["detail"]
    problem(keyed.post("/tickets", json={"scope": scope}), 401, "key_missing")


@pytest.mark.parametrize(
    "body", [{}, {"scope": "predict"}, {"scope": None}, {"scope": "stream", "for": 1}, [], "x"]
)
def test_a_request_for_a_ticket_is_checked(
    keyed: TestClient, keys: dict[str, Any], body: Any
) -> None:
    problem(keyed.post("/tickets", json=body, headers=keys["admin"]), 422, "bad_parameter")


def test_a_ticket_is_of_the_page_that_got_it(keyed: TestClient, keys: dict[str, Any]) -> None:
    mine = ticket(keyed, "stream", keys["predict"], APP)
    told = refused(keyed, mine, Origin=OWN)
    assert f"was made for pages of {APP}, and is used by one of {OWN}" in told
    assert "is used by none" in refused(keyed, mine)
    assert stream(keyed, mine, Origin=APP)["type"] == "final"  # the attempts did not use it up
    program = ticket(keyed, "stream", keys["predict"], "")
    assert "made for no page" in refused(keyed, program, Origin=OWN)
    assert stream(keyed, program)["type"] == "final"


def test_a_ticket_is_of_its_key(keyed: TestClient, keys: dict[str, Any], path: Path) -> None:
    mine = ticket(keyed, "stream", keys["predict"])
    told = refused(keyed, mine, Origin=OWN, **keys["admin"])
    assert "of another key" in told
    assert stream(keyed, mine, Origin=OWN, **keys["predict"])["type"] == "final"
    second = ticket(keyed, "stream", keys["predict"])
    KeyFile(path).revoke("predict")
    time.sleep(1.1)  # the file is looked at once a second
    assert "revoked" in refused(keyed, second, Origin=OWN)


def test_events_and_report_of_own_jobs(
    keyed: TestClient, keys: dict[str, Any], tmp_path: Path
) -> None:
    mine, theirs = (job_of(keyed, tmp_path, keys[name]) for name in ("adapt", "admin"))
    # a page of the service itself: no Origin
    events = keyed.get(f"/adapt/{mine}/events?ticket={ticket(keyed, 'events', keys['adapt'])}")
    assert events.status_code == 200
    assert "event: job" in events.text
    # a page of another site
    text = ticket(keyed, "events", keys["adapt"], APP)
    url = f"/adapt/{mine}/events?ticket={text}"
    problem(keyed.get(url), 401, "ticket_refused")
    answer = keyed.get(url, headers={"Origin": APP})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    # one's own jobs only, even of a key that sees all
    for name, job in (("adapt", theirs), ("admin", mine)):
        for kind in ("events", "report"):
            text = ticket(keyed, kind, keys[name])
            problem(keyed.get(f"/adapt/{job}/{kind}?ticket={text}"), 404, "unknown_job")


def test_a_report_is_read_again(keyed: TestClient, keys: dict[str, Any], tmp_path: Path) -> None:
    job, other = (job_of(keyed, tmp_path, keys["adapt"]) for _ in range(2))
    text = ticket(keyed, "report", keys["adapt"], APP)
    for _ in range(2):
        page = keyed.get(f"/adapt/{job}/report?ticket={text}", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert page.headers["referrer-policy"] == "no-referrer"
        assert text not in page.text
    problem(keyed.get(f"/adapt/{other}/report?ticket={text}"), 401, "ticket_refused")
    problem(keyed.get(f"/adapt/{job}/events?ticket={text}"), 401, "ticket_refused")


def test_a_ticket_opens_nothing_else(keyed: TestClient, keys: dict[str, Any]) -> None:
    text = ticket(keyed, "report", keys["adapt"])
    for url in ("/adapt", "/adapt/x", "/models", "/metrics"):
        problem(keyed.get(f"{url}?ticket={text}"), 401, "key_missing")
    text = ticket(keyed, "stream", keys["predict"])
    for query in (f"ticket={text}&ticket={text}", "ticket=", f"ticket={text}x", "ticket=%00"):
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            keyed.websocket_connect(f"/stream?{query}", headers={"Origin": OWN}),
        ):
            pass
        problem(denied.value, 401, "ticket_refused")


def test_without_keys_a_ticket_is_given_and_not_required(client: TestClient) -> None:
    text = ticket(client, "stream", {})
    for given in (text, text, None, "made-up"):
        assert stream(client, given)["type"] == "final"


def test_without_a_database_there_is_no_ticket(
    start: Callable[..., TestClient], path: Path, keys: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    database = f"sqlite:///{tmp_path}/file/nnpm.db"
    client = start(api_keys_file=path, database_url=database, adapt_workers=0)
    answer = client.post("/tickets", json={"scope": "stream"}, headers=keys["predict"])
    problem(answer, 503, "store_unavailable")
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/stream?ticket=x", headers={"Origin": OWN}),
    ):
        pass
    problem(denied.value, 503, "store_unavailable")


def test_a_ticket_is_in_no_log_and_no_trace(
    models: Path, path: Path, keys: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    settings = Settings(models=models, api_keys_file=path, adapt_workers=0)
    app = create_app(settings, tracing=Tracing(provider))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with TestClient(app) as client:
        wait_until_ready(client)
        first = ticket(client, "stream", keys["predict"])
        stream(client, first, Origin=OWN)
        second = ticket(client, "events", keys["adapt"])
        problem(client.get(f"/adapt/x/events?a=b&ticket={second}"), 404, "unknown_job")
    ours = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore"))]
    seen = "\n".join(
        [
            *(str(vars(one)) for one in ours),
            *(span.to_json() for span in exporter.get_finished_spans()),
        ]
    )
    assert "/adapt/{id}/events" in seen
    for text in (first, second):
        assert text not in seen


def test_an_origin_that_is_refused_is_named_once(
    serve: Callable[..., TestClient], clip: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve()
    for _ in range(3):
        answer = client.post("/predict", content=clip, headers={"Origin": APP})
        problem(answer, 403, "foreign_origin")
    for number in range(200):
        client.get(
            "/models", headers={"Origin": f"https://{number}.example\u00e9".encode("latin-1")}
        )
    told = [
        one.getMessage() for one in caplog.records if "NNPM_ALLOWED_ORIGINS" in one.getMessage()
    ]
    assert len([one for one in told if APP in one]) == 1
    assert len(told) == 100
