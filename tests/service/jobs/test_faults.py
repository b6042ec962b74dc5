"""Processes die, freeze and come back, disks fill up, databases go: no job is lost or doubled."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nnpm.service.jobs.errors import StoreUnavailableError
from nnpm.service.jobs.folder import JobFolder
from nnpm.service.jobs.job import Job, State
from nnpm.service.jobs.service import sweep
from nnpm.service.jobs.store import JobStore
from nnpm.service.jobs.worker import Worker
from nnpm.service.registry.registry import Registry
from nnpm.service.settings import Settings
from tests.support.jobs import (
    CHILD,
    WorkerProcess,
    children,
    hold,
    job,
    kill_children,
    until,
)
from tests.support.postgres import Postgres
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.slow
ON_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
"""For faults of a disk or a file, in which the database has no part."""


def at_stages(*stages: str) -> pytest.MarkDecorator:
    """Each of these stages with SQLite, and one with Postgres.

    Stages differ in files and processes. What the databases do in their own way (claims, leases,
    locks) is the same at every stage, and test_store.py tests it with both.
    """
    cases = [("sqlite", stage) for stage in stages] + [("postgres", "adapting")]
    return pytest.mark.parametrize(("url", "stage"), cases, indirect=["url"])


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    write_tiny_bundle(tmp_path / "models/default/1")
    (tmp_path / "audio").mkdir()
    yield tmp_path
    for path in tmp_path.glob("hold-*"):
        path.unlink()
    kill_children(tmp_path)


@pytest.fixture
def workers() -> Iterator[list[WorkerProcess]]:
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        worker.signal(signal.SIGCONT)
        worker.kill()


def made(store: JobStore, top: Path, **changes: object) -> Job:
    one = store.create(job(source=f"folder:{top / 'audio'}", **changes))
    JobFolder(top / "jobs", one.id).create()
    return one


def succeeded(store: JobStore, top: Path, one: Job, seconds: float = 60) -> Job:
    """See that the job came to its end, once, with one version and nothing left behind."""
    until(lambda: store.get(one.id).ended, seconds)
    done = store.get(one.id)
    assert (done.state, done.version) == (State.SUCCEEDED, "2"), done
    assert Registry(top / "models").versions("default") == ["1", "2"]
    assert sorted(path.name for path in (top / "models/default").iterdir() if path.is_dir()) == [
        "1", "2",
    ]  # fmt: skip
    folder = JobFolder(top / "jobs", one.id)
    until(lambda: sorted(p.name for p in folder.path.iterdir()) == ["report.json", "request.json"])
    return done


@at_stages("preparing", "adapting", "evaluating", "publishing")
def test_a_worker_is_killed_and_its_child_goes_on(
    url: str, store: JobStore, top: Path, workers: list[WorkerProcess], stage: str
) -> None:
    one = made(store, top)
    held = hold(top, stage)
    workers.append(WorkerProcess(top, url))
    until((top / f"at-{stage}").exists)
    workers[0].kill()
    held.unlink()
    workers.append(WorkerProcess(top, url, lease_s=30))
    done = succeeded(store, top, one)
    assert done.attempts == 2
    assert len(children(top)) == 1  # adopted, or not begun yet, or done


@at_stages("preparing", "adapting", "evaluating", "publishing")
def test_worker_and_child_are_killed(
    url: str, store: JobStore, top: Path, workers: list[WorkerProcess], stage: str
) -> None:
    one = made(store, top)
    held = hold(top, stage)
    workers.append(WorkerProcess(top, url))
    until((top / f"at-{stage}").exists)
    workers[0].kill()
    kill_children(top)
    assert Registry(top / "models").versions("default") == ["1"]
    held.unlink()
    workers.append(WorkerProcess(top, url, lease_s=30))
    succeeded(store, top, one)
    assert len(children(top)) == (2 if stage in ("adapting", "evaluating") else 1)


@at_stages("adapting", "evaluating")
def test_a_child_is_killed(
    url: str, store: JobStore, top: Path, workers: list[WorkerProcess], stage: str
) -> None:
    one = made(store, top)
    held = hold(top, stage)
    workers.append(WorkerProcess(top, url))
    until((top / f"at-{stage}").exists)
    kill_children(top)
    until(lambda: store.get(one.id).state is State.QUEUED)
    assert "signal 9" in str(store.get(one.id).error)
    held.unlink()
    assert succeeded(store, top, one).error is None
    assert len(children(top)) == 2


def freeze(worker: WorkerProcess, store: JobStore, one: Job) -> None:
    """Freeze a worker that is not just writing: its lock would keep all others out."""
    while True:
        worker.signal(signal.SIGSTOP)
        try:
            store.update(one.id, store.get(one.id).token)
        except StoreUnavailableError:
            worker.signal(signal.SIGCONT)
            time.sleep(0.05)
        else:
            return


@at_stages("preparing", "adapting", "evaluating", "publishing")
def test_a_frozen_worker_is_fenced(
    url: str, store: JobStore, top: Path, workers: list[WorkerProcess], stage: str
) -> None:
    one = made(store, top)
    held = hold(top, stage)
    workers.append(WorkerProcess(top, url, lease_s=0.6))
    until((top / f"at-{stage}").exists)
    freeze(workers[0], store, one)
    workers.append(WorkerProcess(top, url, lease_s=30))
    until(lambda: store.get(one.id).attempts == 2)
    held.unlink()
    workers[0].signal(signal.SIGCONT)
    done = succeeded(store, top, one)
    assert done.attempts == 2
    time.sleep(0.5)
    assert succeeded(store, top, one) == done
    assert len(children(top)) == 1  # the successor's or adopted by it, and harmed by nobody


def test_two_workers_share_the_jobs_and_do_each_once(
    url: str, store: JobStore, top: Path, workers: list[WorkerProcess]
) -> None:
    jobs = [made(store, top) for _ in range(6)]
    held = hold(top, "adapting")
    workers += [WorkerProcess(top, url, lease_s=30) for _ in range(2)]
    until(lambda: len(children(top)) == 2)  # both are at it
    assert store.counts()[State.QUEUED] == 4
    held.unlink()
    until(lambda: all(store.get(one.id).ended for one in jobs))
    found = [store.get(one.id) for one in jobs]
    assert [(one.state, one.attempts) for one in found] == [(State.SUCCEEDED, 1)] * 6
    assert sorted(str(one.version) for one in found) == ["2", "3", "4", "5", "6", "7"]
    assert len(children(top)) == 6


def test_postgres_goes_and_comes_back(
    postgres: Postgres, top: Path, workers: list[WorkerProcess]
) -> None:
    url = postgres.database(f"t{uuid.uuid4().hex}")
    with closing(JobStore(url)) as store:
        one = made(store, top)
        held = hold(top, "adapting")
        workers.append(WorkerProcess(top, url))
        until((top / "at-adapting").exists)
        postgres.stop()
        held.unlink()
        time.sleep(1.5)  # longer than the lease
        postgres.start()
        succeeded(store, top, one)
        assert len(children(top)) == 1


def in_process(top: Path, store: JobStore, tries: int = 2) -> tuple[Worker, Settings]:
    settings = Settings(models=top / "models", adapt_roots=(top / "audio",), adapt_tries=tries)
    registry = Registry(settings.models)
    return Worker(store, registry, settings, command=(sys.executable, "-c", CHILD)), settings


def again(store: JobStore, worker: Worker, one: Job) -> Job:
    """Let the worker try until the job has ended."""
    until(lambda: (worker.work_once(threading.Event()) and store.get(one.id).ended) or
          store.get(one.id).ended)  # fmt: skip
    return store.get(one.id)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sqlite", "nnpm.service.jobs.worker.write_json"),
        ("sqlite", "nnpm.service.jobs.worker.prepare"),
        ("sqlite", "publish"),
        ("postgres", "publish"),
    ],
    indirect=["url"],
)
def test_a_full_disk_is_tried_again_and_then_said(
    store: JobStore, top: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    worker, _ = in_process(top, store)
    one = made(store, top)
    with monkeypatch.context() as patch:
        if place == "publish":
            patch.setattr(Registry, "publish", full)
        else:
            patch.setattr(place, full)
        worker.work_once(threading.Event())
        waiting = store.get(one.id)
        assert (waiting.state, waiting.error) == (State.QUEUED, "The disk of the service is full.")
        done = again(store, worker, one)
    assert (done.state, done.error) == (State.FAILED, "The disk of the service is full.")
    assert Registry(top / "models").versions("default") == ["1"]


@ON_SQLITE
def test_a_disk_that_has_room_again(
    store: JobStore, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    worker, _ = in_process(top, store)
    one = made(store, top)
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "publish", full)
        worker.work_once(threading.Event())
    again(store, worker, one)
    succeeded(store, top, one)
    assert len(children(top)) == 1  # what the child had made was still there


def test_what_a_loss_of_power_leaves_is_no_version(store: JobStore, top: Path) -> None:
    half = top / "models/default/.publishing-2"
    shutil.copytree(top / "models/default/1", half)
    (half / "bundle.json").write_text("{")
    worker, _ = in_process(top, store)
    one = made(store, top)
    folder = JobFolder(top / "jobs", one.id)
    (folder.path / ".request.json.77.tmp").write_text("{")
    folder.report.write_text("{")
    worker.work_once(threading.Event())
    succeeded(store, top, one)
    assert not half.exists()


@ON_SQLITE
def test_a_report_without_its_bundle_is_made_again(store: JobStore, top: Path) -> None:
    worker, _ = in_process(top, store)
    one = made(store, top)
    JobFolder(top / "jobs", one.id).report.write_text(
        '{"clips": {"accepted": 20, "skipped": {}, "examples": {}}, "verdict": "improved",'
        ' "reasons": [], "estimated_accuracy": null, "bundle": "/nowhere"}'
    )
    again(store, worker, one)
    succeeded(store, top, one)


def test_a_folder_that_cannot_be_read_fails_the_job(
    store: JobStore, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir

    def refused(folder: Path) -> Iterator[Path]:
        if folder == top / "audio":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return listed(folder)

    worker, _ = in_process(top, store)
    one = made(store, top)
    (top / "audio").chmod(0)
    with monkeypatch.context() as patch:
        if os.geteuid() == 0:  # who may read every folder
            patch.setattr(Path, "iterdir", refused)
        worker.work_once(threading.Event())
    (top / "audio").chmod(0o700)
    failed = store.get(one.id)
    assert failed.state is State.FAILED
    assert failed.error == "The service may not read this folder."


@ON_SQLITE
def test_a_disk_that_is_really_full(store: JobStore, top: Path) -> None:
    jobs = top / "jobs"
    jobs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(jobs)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can make a small disk, and not everywhere")
    try:
        worker, _ = in_process(top, store, tries=1)
        one = store.create(job(source="archive"))
        folder = JobFolder(jobs, one.id)
        folder.create()
        folder.upload.mkdir()
        with zipfile.ZipFile(folder.upload / "archive", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.wav", bytes(1 << 20))
        worker.work_once(threading.Event())
        done = store.get(one.id)
        assert (done.state, done.error) == (State.FAILED, "The disk of the service is full.")
        assert list(folder.path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(jobs)], check=True)


@at_stages("adapting", "evaluating")
def test_cancelling_takes_effect_within_a_second(
    url: str, store: JobStore, top: Path, workers: list[WorkerProcess], stage: str
) -> None:
    one = made(store, top)
    hold(top, stage)
    workers.append(WorkerProcess(top, url, lease_s=30))
    until((top / f"at-{stage}").exists)
    began = time.monotonic()
    store.request_cancel(one.id)
    until(lambda: store.get(one.id).ended)
    assert store.get(one.id).state is State.CANCELLED
    assert time.monotonic() - began < 5  # a second, but for a machine that is busy
    with pytest.raises(ProcessLookupError):
        os.kill(children(top)[0], 0)


@pytest.mark.parametrize(
    ("url", "how"),
    [("sqlite", "cancelled"), ("postgres", "cancelled"), ("sqlite", "stopped")],
    indirect=["url"],
)
def test_unpacking_ends_within_a_second(
    store: JobStore, top: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(_archive: Path, into: Path, _limits: object, go_on: Callable[[], None]) -> None:
        into.mkdir(parents=True)
        (top / "at-unpacking").touch()
        while True:
            go_on()
            time.sleep(0.01)

    monkeypatch.setattr("nnpm.service.jobs.intake.unpack", endless)
    worker, settings = in_process(top, store)
    one = store.create(job(source="archive"))
    folder = JobFolder(settings.jobs, one.id)
    folder.upload.mkdir(parents=True)
    (folder.upload / "archive").touch()
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    until((top / "at-unpacking").exists)
    began = time.monotonic()
    if how == "cancelled":
        store.request_cancel(one.id)
    else:
        stop.set()
    until(lambda: store.get(one.id).state in (State.CANCELLED, State.QUEUED))
    assert time.monotonic() - began < 5  # a second, but for a machine that is busy
    stop.set()
    thread.join(10)
    assert not list(folder.target.glob("*"))
    assert folder.upload.exists() is (how == "stopped")


def test_what_is_being_published_cannot_be_cancelled_any_more(
    url: str, store: JobStore, top: Path, workers: list[WorkerProcess]
) -> None:
    one = made(store, top)
    held = hold(top, "publishing")
    workers.append(WorkerProcess(top, url))
    until((top / "at-publishing").exists)
    store.request_cancel(one.id)
    held.unlink()
    succeeded(store, top, one)


def test_progress_and_the_time_left_are_told(
    store: JobStore, url: str, top: Path, workers: list[WorkerProcess]
) -> None:
    one = made(store, top)
    held = {stage: hold(top, stage) for stage in ("adapting", "evaluating")}
    workers.append(WorkerProcess(top, url))
    until(lambda: store.get(one.id).progress > 0.3)
    first = store.get(one.id)
    assert (first.state, first.eta_s) == (State.ADAPTING, None)  # nobody can know yet
    held["adapting"].unlink()
    until(lambda: store.get(one.id).state is State.EVALUATING)
    second = store.get(one.id)
    assert first.progress < second.progress < 1
    assert second.eta_s is not None
    # of the stand-in's 1/3 that took as long as the test looked at it
    assert 0 < second.eta_s < 60
    held["evaluating"].unlink()
    assert succeeded(store, top, one).eta_s is None


def test_a_worker_that_is_stopped_gives_its_job_back(store: JobStore, top: Path) -> None:
    worker, _ = in_process(top, store)
    one = made(store, top)
    held = hold(top, "adapting")
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    until((top / "at-adapting").exists)
    stop.set()
    thread.join(10)
    back = store.get(one.id)
    assert (back.state, back.attempts, back.error) == (State.QUEUED, 0, None)
    held.unlink()
    worker.work_once(threading.Event())
    succeeded(store, top, one)


def test_audio_of_ended_jobs_and_orphans_go_and_reports_stay(store: JobStore, top: Path) -> None:
    worker, settings = in_process(top, store)
    ended, waiting = made(store, top), made(store, top)
    worker.work_once(threading.Event())
    folders = {name: JobFolder(settings.jobs, name) for name in (ended.id, waiting.id, "orphan")}
    folders["orphan"].create()
    for folder in folders.values():
        folder.upload.mkdir()
    sweep(settings.jobs, store)
    assert [folder.upload.exists() for folder in folders.values()] == [False, True, True]
    assert folders[ended.id].report.exists()
    sweep(settings.jobs, store, orphan_s=-1)
    assert not folders["orphan"].path.exists()
    assert folders[waiting.id].upload.exists()
