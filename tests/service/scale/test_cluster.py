"""Replicas on Ray Serve and workers on a fleet, on a real cluster of this machine."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from nnpm.service.command import UsageError
from nnpm.service.jobs.job import State
from nnpm.service.jobs.store import JobStore
from nnpm.service.scale import deployment, fleet
from nnpm.service.settings import Settings, SettingsError
from tests.support.jobs import CHILD, hold, job, until
from tests.support.scale import cluster

AUDIO = {"Content-Type": "audio/wav"}
slow = pytest.mark.slow  # Ray takes 4 s to start, Serve 5 s


def test_a_replica_that_anybody_reaches_needs_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deployment.replica_settings(3, "127.0.0.1").workers == 3
    assert deployment.replica_settings(3, "127.0.0.1").adapt_workers == 0
    with pytest.raises(SettingsError, match="requests need no key"):
        deployment.replica_settings(1, "0.0.0.0")
    monkeypatch.setenv("NNPM_INSECURE", "1")
    monkeypatch.setenv("NNPM_WORKERS", "2")
    assert deployment.replica_settings(1, "0.0.0.0").workers == 2


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"models": "models"}, "NNPM_JOBS is jobs; workers on other machines need an absolute"),
        ({"models": "/m", "jobs": "/j", "database_url": "sqlite:///x.db"}, "must be a Postgres"),
    ],
)
def test_a_fleet_shares_what_settings_name(given: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        fleet.require_shared(Settings.model_validate(given))
    fleet.require_shared(Settings.model_validate({"models": "/a/models"}))


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster whose machines see one models folder, empty as yet."""
    pytest.importorskip("ray")
    models = tmp_path_factory.mktemp("fleet") / "models"
    with cluster(3, NNPM_MODELS=str(models)):
        yield models
    del os.environ["NNPM_MODELS"]


@slow
@pytest.mark.filterwarnings("ignore")
def test_several_languages_at_once(ray: Path, models: Path, tmp_path: Path) -> None:
    """Two actors run two jobs at a time; one that is killed is made again, and its job goes on."""
    own = Settings(models=models, adapt_roots=(tmp_path,), job_lease_s=2, adapt_tries=5)
    (tmp_path / "audio").mkdir()
    holding = hold(tmp_path, "adapting")
    store = JobStore(own.database_url)
    source = f"folder:{tmp_path / 'audio'}"
    jobs = [store.create(job(language=tag, source=source)) for tag in ("ur", "bn", "pl")]
    for one in jobs:
        (own.jobs / one.id).mkdir(parents=True)
    command = (sys.executable, "-c", CHILD)
    with fleet.fleet(own, 2, command=command) as workers:
        until(lambda: store.counts()[State.ADAPTING] == 2)
        import ray as api

        api.kill(workers[0], no_restart=False)
        holding.unlink()
        until(lambda: store.counts()[State.SUCCEEDED] == 3, 120)
    found = {one.language: one for one in map(store.get, (one.id for one in jobs))}
    assert len({one.worker for one in found.values()}) == 1  # none: all have ended
    assert sorted(one.version or "" for one in found.values()) == ["3", "4", "5"]


@slow
@pytest.mark.filterwarnings("ignore")
def test_replicas_on_serve(ray: Path, models: Path, clip: bytes) -> None:
    """The same interface; a promotion reaches all; one that dies loses its own requests alone."""
    from ray import serve

    models.rename(ray)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        two = {"num_replicas": 2, "autoscaling_config": None}
        serve.run(deployment.application(**two), route_prefix="/")
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _check_interface(client, clip)
            _check_promotion(client, clip)
            _check_death(client, clip)
    finally:
        serve.shutdown()


def _check_interface(client: httpx2.Client, clip: bytes) -> None:
    answer = client.post("/predict", content=clip, headers=AUDIO)
    assert answer.json()["model"]["version"] == "2"
    assert client.get("/health/ready").status_code == 200
    problem = client.post("/predict", content=b"x", headers=AUDIO)
    assert (problem.status_code, problem.json()["code"]) == (415, "not_audio")


def _check_promotion(client: httpx2.Client, clip: bytes) -> None:
    assert client.post("/models/default/promote", json={"version": "1"}).status_code == 200
    began, streak = time.monotonic(), 0
    while streak < 20:  # both replicas answer some of them
        answer = client.post("/predict", content=clip, headers=AUDIO).json()
        streak = streak + 1 if answer["model"]["version"] == "1" else 0
        assert time.monotonic() - began < 60


def _check_death(client: httpx2.Client, clip: bytes) -> None:
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            answer = client.post("/predict", content=clip, headers=AUDIO)
            statuses[answer.status_code] += 1

    senders = [threading.Thread(target=send) for _ in range(4)]
    for one in senders:
        one.start()
    until(lambda: statuses[200] > 20)
    victim = _replicas()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(_replicas()) == 2 and victim not in _replicas())
    before = statuses[200]
    until(lambda: statuses[200] > before + 20)
    stop.set()
    for one in senders:
        one.join()
    assert statuses.total() - statuses[200] <= len(senders)  # at most one of each sender was there


def _replicas() -> list[int]:
    """Process ids of Serve's replicas."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"ServeReplica" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found
