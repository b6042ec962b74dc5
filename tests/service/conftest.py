import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service import logs
from nnpm.service.api.app import create_app
from nnpm.service.inference import bundle
from nnpm.service.inference.answer import Answer, Options
from nnpm.service.inference.audio.waveform import Recording
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.settings import Settings
from tests.service.sounds import encode, speechlike
from tests.service.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("NNPM_") and name != "NNPM_TEST_DATA":
                patch.delenv(name)
        patch.setenv("NNPM_ALLOWED_HOSTS", "testserver")  # as a TestClient calls it
        # Commands that are run in this process leave its log to pytest.
        patch.setattr(logs, "configure", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def _two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        write_tiny_bundle(root / "default" / version, metrics={"version": version})
    return root


@pytest.fixture
def models(tmp_path: Path, _two_versions: Path) -> Path:
    """A models folder of its own with versions 1 and 2 of a tiny bundle."""
    return Path(shutil.copytree(_two_versions, tmp_path / "models"))


class Hook:
    """Called before every answer; a test may make it wait or raise."""

    def __init__(self) -> None:
        self.before: Callable[[Recording], object] = lambda _: None

    def load(self, path: Path) -> Recognizer:
        return _Hooked(path, self)


class _Hooked(Recognizer):
    def __init__(self, path: Path, hook: Hook) -> None:
        super().__init__(bundle.load(path))
        self._hook = hook

    def answer(self, recording: Recording, options: Options = Options()) -> Answer:  # noqa: B008
        self._hook.before(recording)
        return super().answer(recording, options)


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
def serve(models: Path, hook: Hook) -> Iterator[Callable[..., TestClient]]:
    """Start a service of the test's own, with these settings, and wait until it is ready."""
    clients: list[TestClient] = []

    def start(**settings: object) -> TestClient:
        own = Settings.model_validate({"models": models, "workers": 2, **settings})
        app = create_app(own, load=hook.load)
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        wait_until_ready(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def client(_two_versions: Path) -> Iterator[TestClient]:
    """One service for all tests that leave it as it was."""
    app = create_app(Settings(models=_two_versions, workers=2))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="session")
def clip() -> bytes:
    return encode(speechlike(), subtype="PCM_16")


def wait_until_ready(client: TestClient, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline, client.get("/health/ready").text
        time.sleep(0.01)
