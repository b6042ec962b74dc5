from pathlib import Path

from fastapi.testclient import TestClient

from tests.service.api.problem import problem


def test_models_are_listed(client: TestClient, models: Path) -> None:
    (models / ".being-written" / "1").mkdir(parents=True)
    (models / "empty").mkdir()
    entry = {"name": "default", "versions": ["1", "2"], "aliases": {}}
    assert client.get("/models").json() == {"models": [entry]}
    assert client.get("/models/default").json() == entry


def test_unknown_models_are_404(client: TestClient) -> None:
    problem(client.get("/models/empty"), 404, "unknown_model")
    problem(client.get("/models/default/3"), 404, "unknown_model")
    problem(client.get("/models/../default/1/bundle.json"), 404, "not_found")
    problem(client.get("/models/default/..%2f..%2fdefault"), 404, "not_found")


def test_a_damaged_bundle_is_503_without_its_path(client: TestClient, models: Path) -> None:
    response = client.get("/models/default/1")  # the stand-in's folder holds a card alone
    problem(response, 503, "model_unavailable")
    assert str(models) not in response.text
