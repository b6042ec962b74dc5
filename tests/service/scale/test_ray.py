"""Archives, replicas and a fleet on one real Ray cluster of this machine, and a real S3 store.

Ray takes seconds to start, and so does each of its processes: there is one cluster for all tests,
with few workers. Waiting ends when what is waited for happens; limits are far away.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pandas
import pytest

from nnpm.service import cli
from nnpm.service.jobs.job import State
from nnpm.service.jobs.store import JobStore
from nnpm.service.scale import archive, deployment, fleet
from nnpm.service.settings import Settings
from tests.support.jobs import CHILD, hold, job, until
from tests.support.scale import LOG, ROOT, Watched, cluster, s3
from tests.support.sounds import encode, speechlike

pytest.importorskip("ray")
pytest.importorskip("moto")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

AUDIO = {"Content-Type": "audio/wav"}
Captured = pytest.CaptureFixture[str]
PATIENCE_S = 400.0
"""Of what Ray does: on a machine with other work a process takes a minute to start."""


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the cluster's processes share: models, empty as yet, and what was scored."""
    shared = tmp_path_factory.mktemp("cluster")
    environment = {LOG: str(shared / "scored"), "NNPM_MODELS": str(shared / "models")}
    before = {name: os.environ.get(name) for name in environment}
    with s3(), cluster(3, **environment):
        yield shared
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def log(ray: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was scored, by workers that die at some names."""
    monkeypatch.setenv("NNPM_MODELS", str(models))
    monkeypatch.setattr(archive, "Scorer", Watched)
    (ray / "scored").unlink(missing_ok=True)
    return ray / "scored"


def bucket(name: str) -> object:
    import boto3

    found = boto3.resource("s3").Bucket(name)
    found.create()
    return found


def test_an_archive_in_a_bucket(log: Path, capsys: Captured, tmp_path: Path) -> None:
    """The rows of the plain command, to the digit; one recording kills each worker."""
    store = bucket("calls")
    for number in range(8):
        data = encode(speechlike(1, seed=number))
        store.put_object(Key=f"in/{number % 2}/é {number}.wav", Body=data)
    store.put_object(Key="in/broken.wav", Body=b"damaged")
    store.put_object(Key="in/notes.txt", Body=b"no audio")
    plain = tmp_path / "plain.parquet"
    assert cli.main(["predict", "s3://calls/in", "-o", str(plain)]) == 0

    store.put_object(Key="in/1/deadly.wav", Body=encode(speechlike(1)))
    command = ["predict", "s3://calls/in/", "-o", "s3://calls/out", "--engine", "ray", "--json"]
    command += ["--jobs", "2"]
    capsys.readouterr()
    assert cli.main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["recordings"], summary["failed"], summary["rows"]) == (10, 2, 10)
    assert summary["audio_s"] == 8.0

    names = {one.key: one.e_tag for one in store.objects.filter(Prefix="out/")}
    parts = {name for name in names if name.endswith(".parquet")}
    assert names.keys() - parts == {"out/_manifest.json", "out/_plan.jsonl.gz"}
    there = [pandas.read_parquet(f"s3://{store.name}/{name}") for name in sorted(parts)]
    found = pandas.concat(there, ignore_index=True)
    deadly = found["file"].str.endswith("deadly.wav")
    assert found[deadly]["error"].tolist() == ["worker_died"]
    assert "2 workers were killed" in found[deadly]["detail"].item()
    expected = pandas.read_parquet(plain)
    pandas.testing.assert_frame_equal(found[~deadly].reset_index(drop=True), expected)

    # another recording arrives: it alone is scored
    log.unlink()
    store.put_object(Key="in/0/later.wav", Body=encode(speechlike(1)))
    assert cli.main(command) == 2
    assert "add --resume" in capsys.readouterr().err
    assert cli.main([*command, "--resume", "--digits", "2"]) == 2
    assert "begun with other options" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 11
    assert log.read_text() == "s3://calls/in/0/later.wav\n"
    after = {one.key: one.e_tag for one in store.objects.filter(Prefix="out/")}
    assert {name: after[name] for name in parts} == {name: names[name] for name in parts}


def test_a_bucket_that_is_missing(log: Path, tmp_path: Path, capsys: Captured) -> None:
    command = ["predict", "s3://nowhere/in", "-o", str(tmp_path / "o"), "--engine", "ray"]
    assert cli.main(command) == 2
    assert "s3://nowhere/in: there is no such file or folder." in capsys.readouterr().err
    (tmp_path / "a.wav").write_bytes(encode(speechlike(1)))
    command = ["predict", str(tmp_path), "-o", "s3://nowhere/out", "--engine", "ray"]
    assert cli.main(command) == 2
    assert "s3://nowhere/out cannot be written" in capsys.readouterr().err.splitlines()[-1]


def test_killed_workers_and_a_killed_driver(
    log: Path, tmp_path: Path, models: Path, capsys: Captured
) -> None:
    """Nothing is scored twice or lost; the driver is a process that joins the cluster."""
    import ray as api

    clips, output, holding = tmp_path / "clips", tmp_path / "out", log.with_name("hold")
    clips.mkdir()
    names = [*(f"{n}.wav" for n in range(6)), "7 once.wav", "8 held.wav"]
    for number, name in enumerate(names):
        (clips / name).write_bytes(encode(speechlike(0.5, seed=number)))
    holding.touch()
    code = (
        "import sys\nfrom nnpm.service import cli\nfrom nnpm.service.scale import archive\n"
        "from tests.support.scale import Watched\narchive.Scorer = Watched\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    address = api.get_runtime_context().gcs_address
    command = ["predict", str(clips), "-o", str(output), "--engine", "ray", "--jobs", "1"]
    driver = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--address", address],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: log.exists() and "held" in log.read_text(), PATIENCE_S)
        assert cli.main([*command, "--resume"]) == 2
        assert "Another run writes" in capsys.readouterr().err
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        holding.unlink()
    done = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert done
    rows = pandas.read_parquet(output)["file"].tolist()

    log.unlink()
    assert cli.main([*command, "--resume", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["recordings"], summary["failed"], summary["rows"]) == (8, 0, 8)
    found = pandas.read_parquet(output)["file"].tolist()
    assert found == [str(clips / name) for name in sorted(names)]  # each once
    # none that was done; none at all if the killed driver's workers had ended the rest meanwhile
    again = log.read_text().splitlines() if log.exists() else []
    assert not {*rows} & {*again}
    assert done.items() <= {p.name: p.stat().st_mtime_ns for p in output.glob("*.parquet")}.items()


def test_several_languages_at_once(ray: Path, models: Path, tmp_path: Path) -> None:
    """Two actors run two jobs at a time; one that is killed is made again, and its job goes on."""
    own = Settings(models=models, adapt_roots=(tmp_path,), job_lease_s=2, adapt_tries=9)
    (tmp_path / "audio").mkdir()
    holding = hold(tmp_path, "adapting")
    store = JobStore(own.database_url)
    source = f"folder:{tmp_path / 'audio'}"
    jobs = [store.create(job(language=tag, source=source)) for tag in ("ur", "bn", "pl")]
    for one in jobs:
        (own.jobs / one.id).mkdir(parents=True)
    command = (sys.executable, "-c", CHILD)
    with fleet.fleet(own, 2, command=command) as workers:
        until(lambda: store.counts()[State.ADAPTING] == 2, PATIENCE_S)
        import ray as api

        api.kill(workers[0], no_restart=False)
        holding.unlink()
        until(lambda: store.counts()[State.SUCCEEDED] == 3, PATIENCE_S)
    found = {one.language: one for one in map(store.get, (one.id for one in jobs))}
    assert len({one.worker for one in found.values()}) == 1  # none: all have ended
    assert sorted(one.version or "" for one in found.values()) == ["3", "4", "5"]


def test_replicas_on_serve(
    ray: Path, models: Path, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same interface; a promotion reaches all; one that dies loses its own requests alone."""
    from ray import serve
    from ray.serve._private import api

    monkeypatch.setattr(api, "HTTP_PROXY_TIMEOUT", PATIENCE_S, raising=False)
    models.rename(ray / "models")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        two = {"num_replicas": 2, "autoscaling_config": None, "health_check_period_s": 1}
        patient = {"health_check_timeout_s": PATIENCE_S}
        serve.run(deployment.application(**two, **patient), route_prefix="/")
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
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
    """Each replica looks twice a second; here only that all come to it, for a load delays them."""
    assert client.post("/models/default/promote", json={"version": "1"}).status_code == 200
    began, streak = time.monotonic(), 0
    while streak < 20:  # both replicas answer some of them
        answer = client.post("/predict", content=clip, headers=AUDIO).json()
        streak = streak + 1 if answer["model"]["version"] == "1" else 0
        assert time.monotonic() - began < PATIENCE_S


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
    try:
        until(lambda: statuses[200] > 20, PATIENCE_S)
        victim = _replicas()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(_replicas()) == 2 and victim not in _replicas(), PATIENCE_S)
        before = statuses[200]
        until(lambda: statuses[200] > before + 20, PATIENCE_S)
    finally:
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
