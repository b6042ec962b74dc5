import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service.api.app import create_app
from nnpm.service.settings import Settings
from tests.support.adaptation import CHILD
from tests.support.servers import wait_until_ready
from tests.support.sounds import encode, speechlike


@pytest.fixture
def start(models: Path, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """A service whose adaptations are done by CHILD."""
    clients: list[TestClient] = []
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/a.wav").write_bytes(encode(speechlike()))

    def made(**settings: object) -> TestClient:
        fields = {"models": models, "workers": 2, "adapt_roots": (tmp_path / "audio",), **settings}
        app = create_app(
            Settings.model_validate(fields), adapt_command=(sys.executable, "-c", CHILD)
        )
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        wait_until_ready(client)
        return client

    yield made
    (tmp_path / "hold").unlink(missing_ok=True)
    for client in clients:
        client.__exit__(None, None, None)
