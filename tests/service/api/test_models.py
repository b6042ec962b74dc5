from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nnpm.service.inference.bundle import FILES
from tests.support.problems import problem
from tests.support.tiny_bundle import LABELS


def test_models_are_listed(serve: Callable[..., TestClient], models: Path) -> None:
    client = serve()
    (models / ".being-written" / "1").mkdir(parents=True)
    (models / "empty").mkdir()
    entry = {"name": "default", "versions": ["1", "2"], "aliases": {}, "figures": []}
    assert client.get("/models").json() == {"models": [entry]}
    assert client.get("/models/default").json() == entry


def test_unknown_models_are_404(client: TestClient) -> None:
    problem(client.get("/models/empty"), 404, "unknown_model")
    problem(client.get("/models/default/3"), 404, "unknown_model")
    problem(client.get("/models/../default/1/bundle.json"), 404, "not_found")
    problem(client.get("/models/default/..%2f..%2fdefault"), 404, "not_found")


def test_a_version_shows_its_card_metrics_and_lineage(client: TestClient) -> None:
    detail = client.get("/models/default/1").json()
    assert (detail["name"], detail["version"], detail["language"]) == ("default", "1", "und")
    assert detail["metrics"] == {"version": "1"}
    assert detail["lineage"]["parent"] is None
    assert detail["card"]["labels"] == list(LABELS)
    assert set(detail["card"]["files"]) == set(FILES[2])


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ({"data": {"version": "1"}}, "send JSON with Content-Type: application/json"),
        (
            {"content": b'{"version": "1"}', "headers": {"Content-Type": "text/plain"}},
            "'text/plain'",
        ),
        ({"json": {"version": 1}}, "version is 1; it must be text."),
        ({"json": {"version": "1", "language": "ur_PK!"}}, "it must be a BCP-47 tag"),
        ({"json": {"version": "1", "langauge": "ur"}}, "langauge is not a known field."),
        ({"json": ["1"]}, "The body is a list; it must be a JSON object."),
        ({"content": b'{"version": "\\ud800"}'}, ""),
    ],
    ids=str,
)
def test_what_cannot_be_promoted_is_said_plainly(
    client: TestClient, sent: dict[str, Any], wanted: str
) -> None:
    for path in ("promote", "shadow"):
        answer = client.post(f"/models/default/{path}", **sent)
        assert wanted in problem(answer, 422, "bad_parameter")["detail"]


@pytest.mark.parametrize("path", ["/models/", "/adapt/", "/docs/", "/health/ready/"])
def test_a_slash_at_the_end_redirects_nowhere(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert "slash" in problem(answer, 404, "not_found")["detail"]


def test_there_are_no_series_of_creation(client: TestClient) -> None:
    assert "_created" not in client.get("/metrics").text
