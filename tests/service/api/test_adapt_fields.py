"""What POST /adapt takes besides recordings: emotions, channels, labels, callback_url."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.adaptation import ended, kept, zipped
from tests.support.hooks import receiving
from tests.support.jobs import until
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike

SECRET = "a secret of this test"
LABELS = "path,emotion\na/1.wav,sad\n2.flac,angry\n"


def report_of(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(f"/adapt/{job['id']}/report", headers={"Accept": "application/json"})
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.smoke
def test_emotions_channels_and_labels_reach_the_adaptation(
    start: Callable[..., TestClient],
) -> None:
    client = start()
    files = {"archive": ("x.zip", zipped("a/1.wav", "2.flac")), "labels": ("l.csv", LABELS)}
    fields = {"language": "ur", "emotions": ["sad", "angry"], "channels": "1"}
    answer = client.post("/adapt", files=files, data=fields)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    wanted = {"emotions": ["sad", "angry"], "channels": 1, "answered_share": None, "kind": "adapt"}
    assert {name: job[name] for name in wanted} == wanted
    done = ended(client, job)
    assert done["state"] == "succeeded", done
    assert done["answered_share"] == {"before": 0.9, "after": 0.8}
    asked = report_of(client, job)["asked"]
    assert asked == {"emotions": ["sad", "angry"], "channels": 1, "labels": LABELS.split()}


def test_a_folder_takes_them_as_json(start: Callable[..., TestClient], tmp_path: Path) -> None:
    client = start()
    asked = {"folder": str(tmp_path / "audio"), "emotions": ["sad", "happy"], "channels": "split"}
    done = ended(client, client.post("/adapt", json=asked).json())
    assert (done["emotions"], done["channels"]) == (["sad", "happy"], "split")
    assert report_of(client, done)["asked"]["channels"] == "split"


BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown emotion": ({"emotions": ["sad", "bored"]}, "emotions names 'bored'"),
    "one emotion": ({"emotions": ["sad"]}, "at least 2"),
    "twice": ({"emotions": ["sad", "sad"]}, "each of them once"),
    "not of the base": ({"emotions": ["sad", "fear"]}, "does not answer; it answers angry, calm"),
    "channel": ({"channels": "left"}, "channels is 'left'; it must be mix, split, or"),
    "negative": ({"channels": "-1"}, "from 0 to 255"),
    "many": ({"channels": "1" * 300}, "from 0 to 255"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_fields_leave_nothing(
    start: Callable[..., TestClient], tmp_path: Path, case: str
) -> None:
    client = start()
    fields, wanted = BAD_FIELDS[case]
    answers = [
        client.post("/adapt", json={"folder": str(tmp_path / "audio"), **fields}),
        client.post("/adapt", files={"archive": ("x.zip", zipped("1.wav"))}, data=fields),
    ]
    for answer in answers:
        assert wanted in problem(answer, 422, "bad_parameter")["detail"]
    assert kept(tmp_path) == []


BAD_LABELS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no column path and no column emotion"),
    "no header": ("a.wav,sad\n", "no column path"),
    "no rows": ("path,emotion\n", "name 0 clips"),
    "unknown emotion": ("path,emotion\na.wav,bored\n", "Row 2 of the labels has the emotion"),
    "unknown path": ("path,emotion\nb.wav,sad\n", "1 of the 1 labelled recordings are missing"),
    "outside": ("path,emotion\n../a.wav,sad\n", "relative to the recordings"),
    "twice": ("path,emotion\na.wav,sad\n./a.wav,sad\n", "names 'a.wav' again"),
    "quotes": ('path,emotion\n"a.wav,sad\n', "not valid CSV"),
    "another code": (b"path,emotion\n\xff.wav,sad\n", "not text in UTF-8"),
    "NUL": ("path,emotion\na\0.wav,sad\n", "not text in UTF-8"),
    "huge": ("path,emotion\n" + "x" * (1 << 20), "more than 1048576 bytes"),
    "huge cell": ("path,emotion\n" + "x" * 200_000 + ",sad\n", "not valid CSV"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_leave_nothing(
    start: Callable[..., TestClient], tmp_path: Path, case: str
) -> None:
    client = start()
    text, wanted = BAD_LABELS[case]
    files = {"files": ("a.wav", encode(speechlike())), "labels": ("l.csv", text)}
    answer = client.post("/adapt", files=files, data={"language": "ur"})
    assert answer.status_code == 422, answer.text
    assert wanted in problem(answer, 422, answer.json()["code"])["detail"]
    assert kept(tmp_path) == []


def test_labels_that_contradict_the_emotions_leave_nothing(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    files = {
        "files": ("a.wav", encode(speechlike())),
        "labels": ("l.csv", "path,emotion\na.wav, Happy\n"),
    }
    answer = start().post("/adapt", files=files, data={"emotions": ["sad", "angry"]})
    said = problem(answer, 422, "bad_parameter")["detail"]
    assert "The labels name happy, and emotions names only sad, angry" in said
    assert kept(tmp_path) == []


def test_labels_that_an_archive_does_not_hold_end_the_job(
    start: Callable[..., TestClient],
) -> None:
    client = start()
    files = {"archive": ("x.zip", zipped("1.wav")), "labels": ("l.csv", LABELS)}
    done = ended(client, client.post("/adapt", files=files, data={"language": "ur"}).json())
    assert done["state"] == "failed"
    assert "2 of the 2 labelled recordings are missing; the first is 'a/1.wav'" in done["error"]


def test_labels_alone_are_no_recordings(start: Callable[..., TestClient], tmp_path: Path) -> None:
    files = {"labels": ("l.csv", LABELS)}
    told = problem(start().post("/adapt", files=files), 422, "bad_form")
    assert "No file named 'archive' or 'files'" in told["detail"]
    assert kept(tmp_path) == []


def test_another_set_of_labels_is_another_request(start: Callable[..., TestClient]) -> None:
    client = start()
    archive = zipped("a/1.wav", "2.flac")

    def post(labels: str) -> Any:
        files = {"archive": ("x.zip", archive), "labels": ("l.csv", labels)}
        return client.post("/adapt", files=files, headers={"Idempotency-Key": "k"})

    first = post(LABELS).json()
    assert post(LABELS).json()["id"] == first["id"]
    problem(post(LABELS.replace("sad", "happy")), 409, "key_taken")


@pytest.mark.smoke
def test_the_service_posts_the_job_when_it_ends(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start(callback_hosts=("127.0.0.1",), callback_secret=SECRET)
    with receiving() as received:
        url = f"http://127.0.0.1:{received.port}/hook?token=x"
        asked = {"folder": str(tmp_path / "audio"), "language": "ur", "callback_url": url}
        made = client.post("/adapt", json=asked).json()
        assert made["callback_url"] == url
        done = ended(client, made)
        until(lambda: received)
    ((path, _, body),) = received
    assert path == "/hook?token=x"
    assert body.decode() == client.get(f"/adapt/{made['id']}").text
    assert done["state"] == "succeeded"


def test_what_may_not_be_called_is_refused_at_once(
    start: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.1", 0))])
    client = start(callback_hosts="hooks.example.org", callback_secret=SECRET)
    asked = {"folder": str(tmp_path / "audio"), "language": "ur"}
    for url, wanted in {
        "https://evil.test/": "evil.test",
        "https://hooks.example.org/": "private address",
        "x" * 3000: "3000 characters",
    }.items():
        answer = client.post("/adapt", json={**asked, "callback_url": url})
        assert wanted in problem(answer, 422, "callback_refused")["detail"]
    assert client.get("/adapt").json() == {"jobs": []}


def test_a_service_without_a_list_refuses(start: Callable[..., TestClient], tmp_path: Path) -> None:
    asked = {"folder": str(tmp_path / "audio"), "callback_url": "https://hooks.example.org/"}
    told = problem(start().post("/adapt", json=asked), 422, "callback_refused")
    assert "NNPM_CALLBACK_HOSTS is not set" in told["detail"]
