"""A whole service is killed while it adapts, and its database goes: over HTTP, with an upload."""

import contextlib
import http.client
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnpm.service.registry.registry import Registry
from tests.support.adaptation import zipped
from tests.support.jobs import CHILD, ROOT, children, hold, kill_children, until
from tests.support.postgres import Postgres
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.slow

SERVICE = """
import pathlib, socket, sys, time
import uvicorn
from nnpm.service.api.app import create_app
from nnpm.service.registry.registry import Registry
from nnpm.service.settings import Settings
top, url, child = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
publish = Registry.publish

def held(*args, **more):
    (top / "at-publishing").touch()
    while (top / "hold-publishing").exists():
        time.sleep(0.01)
    return publish(*args, **more)

Registry.publish = held
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
settings = Settings(models=top / "models", database_url=url, job_lease_s=1, adapt_tries=5)
app = create_app(settings, adapt_command=(sys.executable, "-c", child))
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
"""


class Service:
    """A service in a process of its own."""

    def __init__(self, top: Path, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(top), url, CHILD], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self._port = int(self.process.stdout.readline())
        until(lambda: self.ask("GET", "/health/ready")[0] == 200)

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "audio/wav"
    ) -> tuple[int, Any]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, 30)) as line:
            line.request(method, path, body, {"Content-Type": kind})
            answer = line.getresponse()
            return answer.status, json.load(answer)

    def adapt(self) -> str:
        head = 'Content-Disposition: form-data; name="archive"; filename="x.zip"'
        body = f"--b\r\n{head}\r\n\r\n".encode() + zipped("a.wav", "b.wav") + b"\r\n--b--\r\n"
        status, job = self.ask("POST", "/adapt", body, "multipart/form-data; boundary=b")
        assert status == 202, job
        return str(job["id"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    write_tiny_bundle(tmp_path / "models/default/1")
    yield tmp_path
    for path in tmp_path.glob("hold-*"):
        path.unlink()
    kill_children(tmp_path)


@pytest.fixture
def services() -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.kill()


def succeeded(service: Service, top: Path, job: str) -> None:
    """See that it ends, once, with one version, its report, and nothing of the recordings."""
    until(lambda: service.ask("GET", f"/adapt/{job}")[1]["state"] == "succeeded")
    assert Registry(top / "models").versions("default") == ["1", "2"]
    folder = top / "jobs" / job
    until(lambda: sorted(path.name for path in folder.iterdir()) == ["report.json", "request.json"])
    assert not list((top / "models/default").glob(".publishing*"))


@pytest.mark.parametrize("stage", ["adapting", "publishing"])
@pytest.mark.parametrize("both", [False, True], ids=["service", "service and child"])
def test_a_service_is_killed_and_the_next_goes_on(
    top: Path, services: list[Service], stage: str, both: bool
) -> None:
    url = f"sqlite:///{top / 'nnpm.db'}"
    services.append(Service(top, url))
    held = hold(top, stage)
    job = services[0].adapt()
    until((top / f"at-{stage}").exists)
    services[0].kill()
    if both:
        kill_children(top)
    assert Registry(top / "models").versions("default") == ["1"]
    held.unlink()
    services.append(Service(top, url))
    succeeded(services[1], top, job)
    assert len(children(top)) == (2 if both and stage != "publishing" else 1)


def test_postgres_goes_and_comes_back_under_a_service(
    postgres: Postgres, top: Path, services: list[Service], clip: bytes
) -> None:
    service = Service(top, postgres.database(f"t{uuid.uuid4().hex}"))
    services.append(service)
    held = hold(top, "adapting")
    job = service.adapt()
    until((top / "at-adapting").exists)
    postgres.stop()
    try:
        status, problem = service.ask("GET", f"/adapt/{job}")
        assert (status, problem["code"]) == (503, "store_unavailable")
        assert service.ask("POST", "/predict", clip)[0] == 200
        assert service.ask("GET", "/health/ready")[0] == 200
        held.unlink()
    finally:
        postgres.start()
    succeeded(service, top, job)
    assert len(children(top)) == 1
