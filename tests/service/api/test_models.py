from collections.abc import Callable
from pathlib import Path

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
    assert set(detail["card"]["files"]) == set(FILES)
