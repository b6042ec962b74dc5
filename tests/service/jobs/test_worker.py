import contextlib
import json
import sys
import threading
from pathlib import Path

import pytest

from service.jobs.job import Job
from service.jobs.layout import JobFolder
from service.jobs.states import State
from service.jobs.store import JobStore
from service.jobs.worker import Worker
from service.registry.registry import Registry
from service.settings import Settings
from tests.service.tiny_bundle import write_tiny_bundle

CHILD = """
import json, pathlib, shutil, sys
folder = pathlib.Path(sys.argv[1])
asked = json.loads((folder / "request.json").read_text())
shutil.copytree(asked["bundle"], asked["out"])
report = {"clips": {"accepted": 20, "skipped": {}, "examples": {}}, "verdict": "improved",
          "reasons": [], "estimated_accuracy": {"value": 0.6, "error": 0.1}, "bundle": asked["out"]}
(folder / "report.json").write_text(json.dumps(report))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_tiny_bundle(tmp_path / "models/default/1")
    (tmp_path / "audio").mkdir()
    return Settings(models=tmp_path / "models", adapt_roots=(tmp_path / "audio",), adapt_tries=2)


def _job(tmp_path: Path, **changes: object) -> Job:
    fields: dict[str, object] = {
        "owner": "a", "name": "default", "language": "ur", "method": "nnpm",
        "source": f"folder:{tmp_path / 'audio'}",
    }  # fmt: skip
    return Job(**(fields | changes))  # type: ignore[arg-type]


def _run(settings: Settings, job: Job, code: str) -> tuple[Job, Registry]:
    registry = Registry(settings.models)
    with contextlib.closing(JobStore(settings.database_url)) as store:
        store.create(job)
        JobFolder(settings.jobs, job.id).create()
        worker = Worker(store, registry, settings, command=(sys.executable, "-c", code))
        assert worker.work_once(threading.Event())
        return store.get(job.id), registry


def test_a_job_is_done_published_and_promoted(settings: Settings, tmp_path: Path) -> None:
    job, registry = _run(settings, _job(tmp_path, auto_promote=True), CHILD)
    assert (job.state, job.version, job.base, job.verdict) == (
        State.SUCCEEDED, "2", "1", "improved",
    )  # fmt: skip
    assert registry.live("default", "ur").version == "2"
    folder = JobFolder(settings.jobs, job.id)
    assert json.loads(folder.report.read_text())["verdict"] == "improved"
    assert not folder.out.exists()


def test_a_child_that_dies_is_tried_again(settings: Settings, tmp_path: Path) -> None:
    job, registry = _run(settings, _job(tmp_path), "import os; os.kill(os.getpid(), 9)")
    assert (job.state, job.attempts) == (State.QUEUED, 1)
    assert job.error == "The adaptation process was ended by signal 9."
    assert registry.versions("default") == ["1"]


def test_a_folder_that_is_not_allowed_fails_the_job(settings: Settings, tmp_path: Path) -> None:
    job, _ = _run(settings, _job(tmp_path, source=f"folder:{tmp_path}"), CHILD)
    assert job.state is State.FAILED
    assert job.error is not None
    assert str(tmp_path) not in job.error
