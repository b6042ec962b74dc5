"""A job done by the real child is what ``nnpm adapt`` does."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

from service.jobs.job import Job
from service.jobs.layout import JobFolder
from service.jobs.methods import DEFAULT_METHOD, METHODS
from service.jobs.states import State
from service.jobs.store import JobStore
from service.jobs.worker import Worker
from service.registry.registry import Registry
from service.settings import Settings
from training import adaptation
from training.probe import voice

ROOT = Path(__file__).parents[2]


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of the bundled model, and recordings: 24 voices, and what is left out."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "models/default/1", tmp_path / "models/default/1")
    (tmp_path / "audio").mkdir()
    for number in range(24):
        sound = voice(100.0 + 12 * number, 1.0 + 0.05 * number, seed=number) * 0.3
        soundfile.write(tmp_path / f"audio/{number:02}.wav", sound, 16_000)
    shutil.copy(tmp_path / "audio/00.wav", tmp_path / "audio/again.wav")
    soundfile.write(tmp_path / "audio/silence.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "audio/short.wav", np.zeros(1_000), 16_000)
    (tmp_path / "audio/text.wav").write_text("no audio")
    return tmp_path


@pytest.fixture
def store(top: Path) -> Iterator[JobStore]:
    with closing(JobStore(f"sqlite:///{top / 'nnpm.db'}")) as store:
        yield store


def done(top: Path, store: JobStore, **changes: object) -> Job:
    settings = Settings(
        models=top / "models", adapt_roots=(top / "audio",), adapt_nice=3, adapt_threads=2
    )
    fields: dict[str, object] = {
        "owner": "ann", "name": "default", "language": "ur", "method": "entropy", "seed": 7,
        "source": f"folder:{top / 'audio'}", "force": True,
    }  # fmt: skip
    job = store.create(Job(**(fields | changes)))  # type: ignore[arg-type]
    JobFolder(settings.jobs, job.id).create()
    Worker(store, Registry(settings.models), settings).work_once(threading.Event())
    return store.get(job.id)


def digests(bundle: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.iterdir()}


def test_the_worker_makes_the_bundle_that_the_command_makes(top: Path, store: JobStore) -> None:
    job = done(top, store)
    assert (job.state, job.version, job.progress) == (State.SUCCEEDED, "2", 1.0), job
    assert job.clips is not None
    assert job.clips.accepted == 24
    assert job.clips.skipped == {
        "duplicate": 1, "no_speech": 1, "too_short": 1, "undecodable": 1,
    }  # fmt: skip
    assert job.clips.examples["undecodable"] == ("text.wav",)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "training", "adapt", "--bundle", top / "models/default/1",
         "--target", top / "audio", "--out", top / "own", "--language", "ur", "--seed", "7",
         "--method", "entropy", "--force", "--json"],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert digests(top / "own") == digests(top / "models/default/2")
    own = json.loads(ran.stdout)
    report = json.loads(JobFolder(top / "jobs", job.id).report.read_text())
    different = {"seconds", "bundle"}
    assert {k: v for k, v in own.items() if k not in different} == {
        k: v for k, v in report.items() if k not in different
    }


def test_too_few_clips_fail_the_job_with_their_number(top: Path, store: JobStore) -> None:
    for path in sorted((top / "audio").glob("[012]?.wav"))[:10]:
        path.unlink()
    job = done(top, store)
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error.startswith("15 of the 18 audio files in the folder are usable, and 20")
    assert str(top) not in job.error
    assert Registry(top / "models").versions("default") == ["1"]


def test_a_second_child_leaves_the_job_alone(top: Path, store: JobStore) -> None:
    import fcntl

    folder = top / "jobs/a"
    folder.mkdir(parents=True)
    with (folder / "child.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "training", "adapt", "--job", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ran.returncode == 2
    assert "another process is at work" in ran.stderr
    assert [path.name for path in folder.iterdir()] == ["child.lock"]


def test_service_and_training_know_the_same_methods() -> None:
    assert set(METHODS) == set(adaptation.METHODS)
    assert DEFAULT_METHOD in METHODS
