"""An environment without settings, the real corpora, and a service on tiny bundles."""

import faulthandler
import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service import logs, settings
from nnpm.service.api.app import create_app
from nnpm.service.settings import Settings
from tests.support.hostile.watch import resident_mib
from tests.support.postgres import Postgres, binaries
from tests.support.servers import Hook, wait_until_ready
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import write_tiny_bundle

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that share cores lose by more threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first imports atheris, which only the group "fuzz" installs; `make fuzz` runs it. The second
# is a program that the tests of the page start.
collect_ignore = ["support/hostile/fuzzing.py", "browser/child.py"]

MakeOnce = Callable[[str, Callable[[Path], object]], Path]


HOSTILE = {
    "test_archive.py", "test_bad_input.py", "test_damaged_version.py", "test_form_limits.py",
    "test_formats.py", "test_formats_page.py", "test_hostile.py", "test_hostile_clients.py",
    "test_joined.py", "test_names.py", "test_process.py", "test_settings.py", "test_uploads.py",
    "test_wav.py",
}  # fmt: skip
"""Modules of the marker hostile: one or more for each kind of fault."""

HOSTILE_S, HOSTILE_SLOW_S, HOSTILE_MIB = 60, 600, 1024


@pytest.fixture(autouse=True)
def _limits(request: pytest.FixtureRequest) -> Iterator[None]:
    """End the run where a hostile input never returns, and fail where it takes much memory."""
    if request.node.get_closest_marker("hostile") is None:
        yield
        return
    slow = request.node.get_closest_marker("slow") is not None
    # A call into C that hangs heeds no exception: the stacks are printed, and the process ends.
    faulthandler.dump_traceback_later(HOSTILE_SLOW_S if slow else HOSTILE_S, exit=True)
    before_mib = resident_mib()
    yield
    faulthandler.cancel_dump_traceback_later()
    assert resident_mib("VmHWM") - max(before_mib, _peak.get("mib", 0.0)) < HOSTILE_MIB
    _peak["mib"] = resident_mib("VmHWM")


_peak: dict[str, float] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The service's doctests are in the contract subset."""
    for item in items:
        if item.path.name in HOSTILE:
            item.add_marker("hostile")
        if isinstance(item, pytest.DoctestItem) and "nnpm/service" in item.nodeid:
            item.add_marker("smoke")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("NNPM_") and not name.startswith("NNPM_TEST_"):
                patch.delenv(name)
        patch.setattr(settings, "ENV_FILE", Path("/nowhere/.env"))  # not that of the checkout
        patch.setenv("NNPM_ALLOWED_HOSTS", "testserver")  # as a TestClient calls it
        # Commands that are run in this process leave its log to pytest.
        patch.setattr(logs, "configure", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("NNPM_TEST_DATA")
    if not folder:
        pytest.skip("NNPM_TEST_DATA does not name the folder of test corpora")
    return Path(folder)


@pytest.fixture(scope="session")
def backbone() -> Path:
    """The folder of a real Whisper; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("NNPM_TEST_BACKBONE")
    if not folder:
        pytest.skip("NNPM_TEST_BACKBONE does not name the folder of a pretrained Whisper")
    return Path(folder)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make what is expensive once for all processes of pytest-xdist; read it, never change it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        """Give the path ``name``, which ``make`` fills unless it has been."""
        path, unfinished = shared / "made-once" / name, shared / "unfinished" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.with_name(f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make(unfinished)
                unfinished.rename(path)
        return path

    return made


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
def postgres() -> Iterator[Postgres]:
    programs = binaries()
    if programs is None:
        pytest.skip("Postgres is not installed (on Debian: apt install postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    folder.chmod(0o755)
    server = Postgres(folder, programs)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def clip() -> bytes:
    return encode(speechlike(), subtype="PCM_16")
