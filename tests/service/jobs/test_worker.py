import contextlib
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from nnpm.service.jobs.folder import JobFolder
from nnpm.service.jobs.job import Job, State
from nnpm.service.jobs.store import JobStore
from nnpm.service.jobs.worker import Worker
from nnpm.service.registry.registry import Registry
from nnpm.service.settings import Settings
from tests.support.tiny_bundle import write_tiny_bundle

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


def test_a_child_that_dies_each_time_interrupts_the_job(settings: Settings, tmp_path: Path) -> None:
    once = settings.model_copy(update={"adapt_tries": 1})
    job, registry = _run(once, _job(tmp_path), "import os; os.kill(os.getpid(), 9)")
    assert (job.state, job.attempts) == (State.INTERRUPTED, 1)
    assert job.error == "The adaptation process was ended by signal 9."
    assert registry.versions("default") == ["1"]


def test_a_folder_that_is_not_allowed_fails_the_job(settings: Settings, tmp_path: Path) -> None:
    job, _ = _run(settings, _job(tmp_path, source=f"folder:{tmp_path}"), CHILD)
    assert job.state is State.FAILED
    assert job.error is not None
    assert str(tmp_path) not in job.error


@pytest.mark.parametrize("verdict", ["no change", "reject"])
def test_only_what_is_better_is_promoted_by_itself(
    settings: Settings, tmp_path: Path, verdict: str
) -> None:
    child = CHILD.replace("improved", verdict)
    job, registry = _run(settings, _job(tmp_path, auto_promote=True, force=True), child)
    assert (job.state, job.version, job.verdict) == (State.SUCCEEDED, "2", verdict)
    assert registry.aliases("default") == {}


def test_the_child_stands_back_and_has_few_threads(settings: Settings, tmp_path: Path) -> None:
    told = tmp_path / "told"
    own = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    code = f"""
import json, os, pathlib, time
deadline = time.monotonic() + 5  # it is told just after it began
def found():
    told = [os.getpriority(os.PRIO_PROCESS, 0)]
    group = pathlib.Path("/proc/self/autogroup")  # where Linux has it
    return told + [int(group.read_text().split()[-1])] if group.exists() else told
while set(found()) != {{{own}}} and time.monotonic() < deadline:
    time.sleep(0.01)
limits = [os.environ[name + "_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")]
pathlib.Path({str(told)!r}).write_text(json.dumps([found(), limits]))
{CHILD}"""
    changed = settings.model_copy(update={"adapt_nice": 7, "adapt_threads": 3})
    job, _ = _run(changed, _job(tmp_path), code)
    assert job.state is State.SUCCEEDED
    nices, limits = json.loads(told.read_text())
    assert set(nices) == {own}
    assert limits == ["3"] * 3
