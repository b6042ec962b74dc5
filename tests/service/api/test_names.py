"""File names that are not UTF-8, or hold control characters, on their way out of the service."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service import cli
from nnpm.service.api.app import create_app
from nnpm.service.inference.errors import NnpmError, original_name, printable
from nnpm.service.jobs.folder import JobFolder
from nnpm.service.jobs.job import Clips, State
from nnpm.service.jobs.store import JobStore
from nnpm.service.settings import Settings
from tests.support.adaptation import CHILD, ended
from tests.support.jobs import job
from tests.support.sounds import encode, speechlike

WAV = encode(speechlike())
LATIN = os.fsdecode(b"caf\xe9.wav")
NAMES = {
    LATIN: r"caf\xe9.wav",
    "line\nbreak.wav": r"line\x0abreak.wav",
    "\x1b[31mred.wav": r"\x1b[31mred.wav",
    "a\u202egpj.wav": r"a\u202egpj.wav",
    "c1\x85.wav": r"c1\u0085.wav",
    "گفتگو\u200c.wav": "گفتگو\u200c.wav",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=NAMES.values())
def test_a_name_is_shown_once_and_found_again(name: str, shown: str) -> None:
    assert printable(name) == shown == printable(shown)
    assert original_name(shown) == name
    assert str(NnpmError(f"{name} is damaged.")) == f"{shown} is damaged."
    json.dumps(shown, ensure_ascii=False).encode()


@pytest.mark.parametrize("lone", ["\ud800", "\ufffe", "\0"])
def test_what_no_text_may_hold_is_escaped(lone: str) -> None:
    shown = printable(f"a{lone}b")
    assert shown.encode().isascii()
    assert original_name(shown) == f"a{lone}b"


@pytest.mark.parametrize("style", ["--json", ""])
def test_predict_answers_for_every_file_of_a_folder(
    models: Path,
    tmp_path: Path,
    style: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(WAV)
    (folder / os.fsdecode(b"bad\xfe.wav")).write_bytes(b"RIFF")
    assert cli.main(["predict", *filter(None, [style]), str(folder)]) == 0
    output = capsys.readouterr().out
    output.encode()  # no surrogate among it
    for shown in [*NAMES.values(), r"bad\xfe.wav"]:
        wanted = json.dumps(shown)[1:-1] if style else shown
        assert wanted in output
    assert len(output.splitlines()) == len(NAMES) + 1


def test_a_batch_shows_the_names_it_was_sent(client: TestClient) -> None:
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b\r\n'
        % (name, audio)
        for name, audio in [(b"caf\xe9.wav", WAV), (b"a\xc2\x85.wav", b"no")]
    )
    answer = client.post(
        "/predict/batch",
        content=body + b"--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert [item["file"] for item in answer.json()["results"]] == [r"caf\xe9.wav", r"a\u0085.wav"]


def test_a_folder_of_such_a_name_is_adapted_to(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    folder = tmp_path / "audio" / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / LATIN).write_bytes(WAV)
    asked = {"folder": f"{tmp_path}/audio/\\xff", "language": "ur"}
    job = ended(client, client.post("/adapt", json=asked).json())
    assert (job["state"], job["clips"]["accepted"]) == ("succeeded", 1)
    report = client.get(f"/adapt/{job['id']}/report", headers={"Accept": "application/json"})
    assert report.json()["names"] == [r"caf\xe9.wav"]


def test_jobs_of_an_earlier_version_with_such_names_are_shown(models: Path, tmp_path: Path) -> None:
    settings = Settings(models=models, adapt_workers=0, jobs=tmp_path / "jobs")
    with closing(JobStore(settings.database_url)) as store:
        made = store.create(job(owner="anonymous"))
        taken = store.claim("w", 30)
        assert taken is not None
        store.update(
            made.id, taken.token, clips=Clips(3, {"no_speech": 1}, {"no_speech": (LATIN,)}),
            state=State.REJECTED, error="so",
        )  # fmt: skip
    folder = JobFolder(settings.jobs, made.id)
    folder.create()
    report = {"clips": {"examples": {"no_speech": [LATIN]}}}
    folder.report.write_text(json.dumps(report))
    app = create_app(settings, adapt_command=(sys.executable, "-c", CHILD))
    with TestClient(app, raise_server_exceptions=False) as client:
        shown = {"no_speech": [r"caf\xe9.wav"]}
        assert client.get("/adapt").json()["jobs"][0]["clips"]["examples"] == shown
        assert client.get(f"/adapt/{made.id}").json()["clips"]["examples"] == shown
        found = client.get(f"/adapt/{made.id}/report", headers={"Accept": "application/json"})
        assert found.json()["clips"]["examples"] == shown
        assert client.delete(f"/adapt/{made.id}").status_code == 200


def test_versions_of_such_a_name_are_not_seen(
    serve: Callable[..., TestClient], models: Path
) -> None:
    (models / "default" / "2").rename(models / "default" / os.fsdecode(b"2\xe9"))
    (entry,) = serve().get("/models").json()["models"]
    assert entry["versions"] == ["1"]
