"""GET /adapt/{id}/clips/{n} and GET /adapt/folders: what a page plays, and what it offers."""

import io
import wave
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from nnpm.service.jobs import intake
from nnpm.service.jobs.database import jobs, now
from nnpm.service.jobs.service import sweep
from nnpm.service.jobs.store import JobStore
from nnpm.service.keys import KeyFile
from tests.support.adaptation import ended, zipped
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike

Start = Callable[..., TestClient]


def done(client: TestClient, **fields: Any) -> dict[str, Any]:
    """A job on a.wav and b.flac, which the report lists as numbers 1 and 2; 0 is not there."""
    files = [
        ("files", ("a.wav", encode(speechlike(1.5, rate=44_100), 44_100))),
        ("files", ("b.flac", encode(speechlike(2), container="FLAC"))),
    ]
    data = {"language": "ur", **fields}
    answer = client.post("/adapt", files=files, data=data)
    assert answer.status_code == 202, answer.text
    return ended(client, answer.json())


def heard(answer: Any) -> tuple[int, int, int]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["cache-control"] == "no-store"
    with wave.open(io.BytesIO(answer.content)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.abs(samples).max() > 1_000
        return file.getframerate(), file.getnchannels(), file.getnframes()


@pytest.mark.smoke
def test_changed_answers_can_be_heard(start: Start) -> None:
    client = start()
    job = done(client, keep_audio="true")
    assert job["keep_audio"] is True
    assert heard(client.get(f"/adapt/{job['id']}/clips/1")) == (16_000, 1, 24_000)
    assert heard(client.get(f"/adapt/{job['id']}/clips/2")) == (16_000, 1, 32_000)


@pytest.mark.parametrize("method", ["nnpm", "dann"])
def test_a_rejected_job_keeps_them_too(start: Start, method: str) -> None:
    client = start()
    job = done(client, keep_audio="1", method=method)
    assert job["state"] == ("succeeded" if method == "nnpm" else "rejected")
    heard(client.get(f"/adapt/{job['id']}/clips/1"))


def test_of_a_folder_and_of_an_archive(start: Start, tmp_path: Path) -> None:
    client = start()
    folder = {"folder": str(tmp_path / "audio"), "language": "ur", "keep_audio": True}
    job = ended(client, client.post("/adapt", json=folder).json())
    heard(client.get(f"/adapt/{job['id']}/clips/1"))
    assert (tmp_path / "audio/a.wav").exists()
    archive = {"files": {"archive": zipped("x.wav")}, "data": {"keep_audio": "true"}}
    job = ended(client, client.post("/adapt", **archive).json())  # type: ignore[arg-type]
    heard(client.get(f"/adapt/{job['id']}/clips/1"))


def test_without_keep_audio_there_is_none(start: Start, tmp_path: Path) -> None:
    client = start()
    job = done(client)
    assert job["keep_audio"] is False
    told = problem(client.get(f"/adapt/{job['id']}/clips/1"), 404, "no_clip")
    assert "send keep_audio=true" in told["detail"]
    assert not (tmp_path / f"jobs/{job['id']}/clips").exists()


@pytest.mark.parametrize(
    ("number", "status", "code", "words"),
    [
        ("0", 404, "no_clip", "it could not be kept"),
        ("3", 404, "no_clip", "number is 3; the report lists 0 to 2"),
        ("-1", 422, "bad_parameter", "n"),
        ("99999999999999999999", 422, "bad_parameter", "n"),
        ("one", 422, "bad_parameter", "n"),
        ("1.wav", 422, "bad_parameter", "n"),
        ("..%2f..%2freport.json", 404, "not_found", ""),
    ],
)
def test_an_unknown_number_is_named(
    start: Start, number: str, status: int, code: str, words: str
) -> None:
    client = start()
    job = done(client, keep_audio="true")
    answer = client.get(f"/adapt/{job['id']}/clips/{number}")
    assert words in problem(answer, status, code)["detail"]


def test_a_job_that_runs_has_none_yet(start: Start, tmp_path: Path) -> None:
    client = start()
    (tmp_path / "hold").touch()
    folder = {"folder": str(tmp_path / "audio"), "language": "ur", "keep_audio": True}
    job = client.post("/adapt", json=folder).json()
    problem(client.get(f"/adapt/{job['id']}/clips/1"), 409, "not_finished")
    client.delete(f"/adapt/{job['id']}")
    ended(client, job)  # while it is held, so that it cannot succeed first
    (tmp_path / "hold").unlink()
    problem(client.get(f"/adapt/{job['id']}/clips/1"), 404, "no_report")


def test_they_are_deleted_after_a_time_and_on_request(start: Start, tmp_path: Path) -> None:
    client = start()
    first, second = (done(client, keep_audio="true") for _ in range(2))
    clips = [tmp_path / f"jobs/{job['id']}/clips" for job in (first, second)]
    assert client.delete(f"/adapt/{first['id']}").json()["state"] == first["state"]
    problem(client.get(f"/adapt/{first['id']}/clips/1"), 404, "no_clip")
    assert [path.exists() for path in clips] == [False, True]

    store: JobStore = client.app.state.services.jobs.store  # type: ignore[attr-defined]
    sweep(tmp_path / "jobs", store, keep_audio_s=86_400)
    heard(client.get(f"/adapt/{second['id']}/clips/1"))
    with store.database.write() as connection:
        old = now(connection) - timedelta(days=1, seconds=1)
        connection.execute(jobs.update().values(ended_at=old))
    problem(client.get(f"/adapt/{second['id']}/clips/1"), 404, "no_clip")
    sweep(tmp_path / "jobs", store, keep_audio_s=86_400)
    assert not clips[1].exists()
    assert client.get(f"/adapt/{second['id']}/report").status_code == 200


def test_only_the_owner_hears_them(start: Start, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    mine, theirs = (
        {"X-API-Key": file.create(name, frozenset({"adapt"}))[0]} for name in ("mine", "theirs")
    )
    client = start(api_keys_file=tmp_path / "keys.json")
    client.headers.update(mine)
    job = done(client, keep_audio="true")
    heard(client.get(f"/adapt/{job['id']}/clips/1"))
    problem(client.get(f"/adapt/{job['id']}/clips/1", headers=theirs), 404, "unknown_job")


@pytest.mark.parametrize("value", ["maybe", "2", "", "null"])
def test_keep_audio_is_checked(start: Start, value: str) -> None:
    answer = start().post("/adapt", files={"files": ("a.wav", b"x")}, data={"keep_audio": value})
    assert "keep_audio" in problem(answer, 422, "bad_parameter")["detail"]


def test_a_part_or_the_first_minute_is_kept(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(intake, "KEPT_S", 2.0)
    (tmp_path / "a.wav").write_bytes(encode(speechlike(5)))
    limits = intake.Limits()

    def length(**part: float) -> float:
        data = intake._as_wav(tmp_path, {"path": "a.wav", **part}, limits)
        return (len(data) - 44) / 32_000

    assert length() == 2.0
    assert length(start_s=1, end_s=2.5) == 1.5
    assert length(start_s=1, end_s=5) == 2.0
    with pytest.raises(intake.FolderRefusedError):
        intake._as_wav(tmp_path / "sub", {"path": "../a.wav"}, limits)


def test_folders_are_listed(start: Start, tmp_path: Path) -> None:
    root = tmp_path / "audio"
    for name in ("urdu/calls", "german", ".hidden", "@eaDir", "urdu/.git"):
        (root / name).mkdir(parents=True)
    (root / "away").symlink_to(tmp_path)
    client = start(adapt_roots=(root, root, tmp_path / "missing"))
    roots = client.get("/adapt/folders").json()["roots"]
    assert roots == [
        {
            "path": str(root),
            "folders": [str(root / name) for name in ("german", "urdu", "urdu/calls")],
            "truncated": False,
        },
        {"path": str(tmp_path / "missing"), "folders": [], "truncated": False},
    ]
    named = {"folder": roots[0]["folders"][0], "language": "ur"}
    assert client.post("/adapt", json=named).status_code == 202


def test_many_folders_are_cut(start: Start, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(intake, "MAX_FOLDERS", 3)
    for number in range(5):
        (tmp_path / f"audio/{number}").mkdir()
    (root,) = start().get("/adapt/folders").json()["roots"]
    assert (len(root["folders"]), root["truncated"]) == (3, True)


def test_without_roots_there_are_no_folders(start: Start) -> None:
    assert start(adapt_roots=()).get("/adapt/folders").json() == {"roots": []}
