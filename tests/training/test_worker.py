"""What POST /adapt makes, with the real child, is what ``nnpm adapt`` makes."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from nnpm.service.api.app import create_app
from nnpm.service.jobs.folder import DEFAULT_METHOD, METHODS
from nnpm.service.registry.registry import Registry
from nnpm.service.settings import Settings
from nnpm.training.adaptation import methods
from tests.support.sounds import speechlike

ROOT = Path(__file__).parents[2]


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of the bundled model, and recordings: 24 voices, and what is left out."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "models/default/2", tmp_path / "models/default/2")
    (tmp_path / "audio").mkdir()
    for number in range(24):
        sound = speechlike(1.0 + 0.05 * number, seed=number, pitch_hz=100.0 + 4 * number)
        soundfile.write(tmp_path / f"audio/{number:02}.wav", sound, 16_000)
    shutil.copy(tmp_path / "audio/00.wav", tmp_path / "audio/again.wav")
    soundfile.write(tmp_path / "audio/silence.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "audio/short.wav", np.zeros(1_000), 16_000)
    (tmp_path / "audio/text.wav").write_text("no audio")
    return tmp_path


def adapted(top: Path, workers: int = 1, **fields: str) -> dict[str, Any]:
    """Send the recordings to a service, and wait for its job; ``report`` is added to it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((top / "audio").iterdir()):
            archive.write(path, path.name)
    settings = Settings(models=top / "models", adapt_nice=0, adapt_threads=2, adapt_workers=workers)
    asked = {"language": "ur", "method": "entropy", "seed": "7", "force": "true"} | fields
    with TestClient(create_app(settings)) as client:
        sent = client.post("/adapt", files={"archive": packed.getvalue()}, data=asked)
        assert sent.status_code == 202, sent.text
        job: dict[str, Any] = sent.json()
        deadline = time.monotonic() + 300
        while job["state"] in ("queued", "preparing", "adapting", "evaluating", "publishing"):
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
            job = client.get(f"/adapt/{job['id']}").json()
        report = client.get(f"/adapt/{job['id']}/report", headers={"Accept": "application/json"})
        page = client.get(f"/adapt/{job['id']}/report")
    return {**job, "report": report.json(), "page": page.text}


def digests(bundle: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.iterdir()}


def test_the_service_makes_the_bundle_that_the_command_makes(top: Path) -> None:
    job = adapted(top)
    assert (job["state"], job["version"], job["progress"]) == ("succeeded", "3", 1.0), job
    assert job["clips"]["accepted"] == 24
    assert job["clips"]["skipped"] == {
        "duplicate": 1, "no_speech": 1, "too_short": 1, "undecodable": 1,
    }  # fmt: skip
    assert job["clips"]["examples"] == {
        "duplicate": ["again.wav"], "no_speech": ["silence.wav"], "too_short": ["short.wav"],
        "undecodable": ["text.wav"],
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "nnpm.training", "adapt", "--bundle", top / "models/default/2",
         "--target", top / "audio", "--out", top / "own", "--language", "ur", "--seed", "7",
         "--method", "entropy", "--force", "--json"],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert digests(top / "own") == digests(top / "models/default/3")
    own = json.loads(ran.stdout)
    different = {"seconds", "bundle", "warnings"}
    assert {k: v for k, v in own.items() if k not in different} == {
        k: v for k, v in job["report"].items() if k not in different
    }
    assert own["verdict"] in job["page"]
    assert "text.wav" in job["page"]


def test_too_few_clips_fail_the_job_with_their_number(top: Path) -> None:
    for path in sorted((top / "audio").glob("[012]?.wav"))[:10]:
        path.unlink()
    job = adapted(top)
    assert job["state"] == "failed"
    few = "15 of the 18 audio files in the folder are usable; at least 20 are required"
    assert job["error"].startswith(few)
    assert str(top) not in job["error"]
    assert job["report"]["code"] == "no_report"
    assert Registry(top / "models").versions("default") == ["2"]


def test_a_worker_elsewhere_does_what_a_service_takes(top: Path) -> None:
    beat = top / "beat"
    run = [sys.executable, "-c", "import sys; from nnpm.service.cli import main; sys.exit(main())"]
    process = subprocess.Popen(
        [*run, "worker", "--heartbeat", beat],
        env={**os.environ, "NNPM_MODELS": str(top / "models"), "NNPM_ADAPT_NICE": "0"},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        job = adapted(top, workers=0, method="adabn")
        assert (job["state"], job["version"]) == ("succeeded", "3"), job
        asked = subprocess.run([*run, "health", "--heartbeat", beat], check=False)
        assert asked.returncode == 0
    finally:
        process.terminate()
        _, reported = process.communicate(timeout=30)
    assert process.returncode == 0, reported
    assert b"Ready. Waiting for jobs." in reported


def test_a_second_child_leaves_the_job_alone(top: Path) -> None:
    import fcntl

    folder = top / "jobs/a"
    folder.mkdir(parents=True)
    with (folder / "child.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "nnpm.training", "adapt", "--job", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ran.returncode == 2
    assert "another process is at work" in ran.stderr
    assert [path.name for path in folder.iterdir()] == ["child.lock"]


def test_service_and_training_know_the_same_methods() -> None:
    assert tuple(methods.METHODS) == METHODS
    assert DEFAULT_METHOD in METHODS
