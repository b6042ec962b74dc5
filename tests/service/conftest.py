import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from tests.service.sounds import encode, speechlike
from tests.service.stand_in import StandIn, card


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NNPM_") and name != "NNPM_TEST_DATA":
            monkeypatch.delenv(name)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder whose bundles only a stand-in can load."""
    for version in ("1", "2"):
        folder = tmp_path / "models" / "default" / version
        folder.mkdir(parents=True)
        (folder / "bundle.json").write_text(card().model_dump_json())
    return tmp_path / "models"


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def serve(models: Path, stand_in: StandIn) -> Iterator[Callable[..., TestClient]]:
    """Start a service with the given settings and wait until it is ready."""
    clients: list[TestClient] = []

    def start(**settings: object) -> TestClient:
        own = Settings.model_validate({"models": models, "workers": 2, **settings})
        client = TestClient(create_app(own, load=lambda _: stand_in), raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        wait_until_ready(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve()


@pytest.fixture(scope="session")
def clip() -> bytes:
    return encode(speechlike(), subtype="PCM_16")


def wait_until_ready(client: TestClient, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline, client.get("/health/ready").text
        time.sleep(0.01)


def app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app
