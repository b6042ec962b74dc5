from typing import Annotated

import pytest
from fastapi import FastAPI, Query
from fastapi.testclient import TestClient

from nnpm.service.predict.predict import PredictQuery


@pytest.fixture(scope="module")
def echo() -> TestClient:
    app = FastAPI()

    @app.get("/")
    async def route(query: Annotated[PredictQuery, Query()]) -> PredictQuery:
        return query

    return TestClient(app)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("", {}),
        ("model=a%2Fb&language=pt-BR", {"model": "a/b", "language": "pt-BR"}),
        ("abstain=false&window_s=2&hop_s=1", {"abstain": False, "window_s": 2, "hop_s": 1}),
        ("top_k=3&neighbours=4", {"top_k": 3, "neighbours": 4}),
        ("emotions=sad&emotions=angry", {"emotions": ["sad", "angry"]}),
        ("top_k=1&top_k=2&unknown=1", {"top_k": 2}),
    ],
)  # fmt: skip
def test_it_is_read_as_sent(echo: TestClient, sent: str, read: dict[str, object]) -> None:
    expected = PredictQuery().model_dump(mode="json") | read
    for _ in range(2):  # the second time from what was kept
        assert echo.get(f"/?{sent}").json() == expected


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        ("top_k=9", ["query", "top_k"]),
        ("window_s=nan", ["query", "window_s"]),
        ("channels=left", ["query", "channels"]),
        ("window_s=1&hop_s=2", ["query"]),
    ],
)
def test_what_cannot_be_used_is_named(echo: TestClient, sent: str, where: list[str]) -> None:
    for _ in range(2):
        response = echo.get(f"/?{sent}")
        assert response.status_code == 422
        assert [error["loc"] for error in response.json()["detail"]] == [where]


def test_every_parameter_is_described(echo: TestClient) -> None:
    parameters = echo.get("/openapi.json").json()["paths"]["/"]["get"]["parameters"]
    assert [one["name"] for one in parameters] == list(PredictQuery.model_fields)
    assert all(one["description"] for one in parameters)
