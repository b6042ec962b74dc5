import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from nnpm.service.api.middleware.access import Caller
from tests.support.adaptation import ended, kept, zipped
from tests.support.jobs import until
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike


@pytest.mark.smoke
def test_a_folder_becomes_a_version(start: Callable[..., TestClient], tmp_path: Path) -> None:
    client = start()
    asked = {"folder": str(tmp_path / "audio"), "language": "urd", "seed": 7}
    answer = client.post("/adapt", json=asked)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/adapt/{job['id']}"
    wanted = {"language": "ur", "name": "default", "method": "nnpm", "seed": 7, "version": None}
    assert {key: job[key] for key in wanted} == wanted
    done = ended(client, job)
    assert (done["state"], done["version"], done["base"]) == ("succeeded", "3", "2")
    assert done["clips"] == {
        "accepted": 1, "skipped": {"no_speech": 1}, "examples": {"no_speech": ["<b>.wav"]},
        "passed_over": {},
    }  # fmt: skip
    assert (done["verdict"], done["progress"], done["error"]) == ("improved", 1.0, None)
    assert done["estimated_accuracy"] == {"value": 0.6, "error": 0.1}
    assert client.get("/adapt").json() == {"jobs": [done]}
    assert client.get("/models/default").json()["versions"] == ["1", "2", "3"]
    named = client.post("/predict?model=default/3", content=encode(speechlike())).json()["model"]
    assert named["version"] == "3"


def test_the_report_is_json_and_a_page(start: Callable[..., TestClient], tmp_path: Path) -> None:
    client = start()
    (tmp_path / "hold").touch()
    job = client.post("/adapt", json={"folder": str(tmp_path / "audio"), "language": "ur"}).json()
    told = problem(client.get(f"/adapt/{job['id']}/report"), 409, "not_finished")
    assert "its report is there when it ends" in told["detail"]
    (tmp_path / "hold").unlink()
    ended(client, job)
    report = client.get(f"/adapt/{job['id']}/report", headers={"Accept": "application/json"})
    assert report.json()["bundle"] == "default/3"
    assert str(tmp_path) not in report.text
    for accept in ("*/*", "text/html,application/json;q=0.9"):
        page = client.get(f"/adapt/{job['id']}/report", headers={"Accept": accept})
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "It does &lt;better&gt;." in page.text
        assert "&lt;b&gt;.wav" in page.text
        assert "Version 3 of default" in page.text
        assert "&lt;i&gt;.wav" in page.text
        assert re.search(r"The \d+ surest of 9\.", page.text)
        assert "<script" not in page.text


def test_the_page_compares_before_and_after_and_says_what_is_next(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    asked = {"folder": str(tmp_path / "audio"), "language": "ur"}
    done = ended(client, client.post("/adapt", json=asked).json())
    page = client.get(f"/adapt/{done['id']}/report").text
    root = ElementTree.fromstring(re.sub(r"<!doctype html>|<meta[^>]*>", "", page))
    rows = {
        row[0].text: [cell.text for cell in row[1:]] for row in root.iter("tr") if len(row) == 3
    }
    assert rows["get an answer"] == ["90 %", "80 %"]
    assert rows["mean confidence"] == ["70 %", "65 %"]
    assert (rows["answer angry"], rows["answer sad"]) == (["75 %", "0 %"], ["25 %", "100 %"])
    charts = [svg.attrib["aria-label"] for svg in root.iter("svg")]
    assert charts[0] == (
        "Emotions in the answers: angry 75 % before, 0 % after; sad 25 % before, 100 % after"
    )
    assert len(charts) == 3
    commands = [pre.text or "" for pre in root.iter("pre")]
    assert "http://testserver/predict?model=default/3" in commands[0]
    assert "http://testserver/models/default/3/evaluate" in commands[1]
    assert "http://testserver/models/default/promote" in commands[2]


def test_a_report_of_an_earlier_release_has_its_page(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    asked = {"folder": str(tmp_path / "audio"), "language": "ur"}
    done = ended(client, client.post("/adapt", json=asked).json())
    path = tmp_path / "jobs" / done["id"] / "report.json"
    report = json.loads(path.read_text())
    for name in ("answered_share", "confidence", "emotions", "changed", "changed_clips", "labels"):
        del report[name]
    path.write_text(json.dumps(report))
    page = client.get(f"/adapt/{done['id']}/report")
    assert page.status_code == 200
    assert "Before and after" not in page.text


def test_events_tell_every_change_to_the_end(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    (tmp_path / "hold").touch()
    job = client.post("/adapt", json={"folder": str(tmp_path / "audio"), "language": "ur"}).json()
    threading.Timer(0.7, (tmp_path / "hold").unlink).start()
    answer = client.get(f"/adapt/{job['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    states = [json.loads(line)["state"] for line in data]
    assert states[-1] == "succeeded"
    assert "adapting" in states
    assert [json.loads(line)["progress"] for line in data] == sorted(
        json.loads(line)["progress"] for line in data
    )
    problem(client.get("/adapt/nobody/events"), 404, "unknown_job")


@pytest.mark.smoke
@pytest.mark.parametrize("part", ["archive", "files"])
def test_uploads_are_adapted_to_and_then_removed(
    start: Callable[..., TestClient], tmp_path: Path, part: str
) -> None:
    client = start()
    clip = encode(speechlike())
    files: list[tuple[str, tuple[str, bytes]]] = [
        ("archive", ("x.zip", zipped("a/1.wav", "2.flac")))
    ]
    wanted = ["1.wav", "2.flac"]
    if part == "files":
        sent = ["a.wav", "a.wav", "../../b.wav", "C:\\x\\c.OGG", ".d.wav", "e", "ü.wav", ""]
        files = [("files", (name, clip)) for name in sent[:-1]]
        wanted = ["a.wav", "a~2.wav", "b.wav", "c.OGG", "d.wav", "e.wav", "ü.wav"]
    job = client.post("/adapt", files=files, data={"language": "ur", "auto_promote": "true"}).json()
    done = ended(client, job)
    assert done["state"] == "succeeded", done
    report = client.get(f"/adapt/{job['id']}/report", headers={"Accept": "application/json"}).json()
    assert report["names"] == sorted(wanted)
    assert kept(tmp_path) == [job["id"]]
    folder = tmp_path / "jobs" / job["id"]
    until(lambda: sorted(p.name for p in folder.iterdir()) == ["report.json", "request.json"])
    assert client.get("/models/default").json()["aliases"]["ur"]["live"] == "3"


def test_a_rejected_job_publishes_only_by_force(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    asked = {"folder": str(tmp_path / "audio"), "language": "ur", "method": "dann"}
    done = ended(client, client.post("/adapt", json=asked).json())
    assert (done["state"], done["version"], done["verdict"]) == ("rejected", None, "reject")
    assert done["error"] == "It does <better>."
    page = client.get(f"/adapt/{done['id']}/report").text
    assert "No version was published" in page
    done = ended(client, client.post("/adapt", json={**asked, "force": True}).json())
    assert (done["state"], done["version"], done["verdict"]) == ("succeeded", "3", "reject")


def test_a_key_makes_one_job_of_many_requests(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    (tmp_path / "hold").touch()
    key = {"Idempotency-Key": "k"}
    archive = zipped("1.wav")

    def post(data: bytes, language: str = "ur") -> Any:
        files = {"archive": ("x.zip", data)}
        return client.post("/adapt", files=files, data={"language": language}, headers=key)

    first = post(archive).json()
    again = post(archive)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    for other in (post(zipped("2.wav")), post(archive, "de")):
        assert "another request" in problem(other, 409, "key_taken")["detail"]
    assert kept(tmp_path) == [first["id"]]
    for bad in ("", "x" * 256, "\x01"):
        headers = {"Idempotency-Key": bad}
        problem(client.post("/adapt", json={"folder": "/x"}, headers=headers), 422, "bad_parameter")


def test_the_same_key_at_once_makes_one_job(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    found: list[str] = []

    def post() -> None:
        answer = client.post(
            "/adapt",
            json={"folder": str(tmp_path / "audio"), "language": "ur"},
            headers={"Idempotency-Key": "k"},
        )
        assert answer.status_code == 202, answer.text
        found.append(answer.json()["id"])

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    ended(client, client.get(f"/adapt/{found[0]}").json())
    assert kept(tmp_path) == [found[0]]


def test_a_job_is_its_owners_alone(
    start: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def caller(request: Request) -> Caller:
        name = request.headers["x-caller"]
        return Caller(name, frozenset({"admin"} if name == "boss" else {"adapt"}))

    monkeypatch.setattr("nnpm.service.api.middleware.access.caller_of", caller)
    client = start()
    asked = {"folder": str(tmp_path / "audio"), "language": "ur"}
    own = {"x-caller": "ann", "Idempotency-Key": "k"}
    job = client.post("/adapt", json=asked, headers=own).json()
    others = {"x-caller": "bob", "Idempotency-Key": "k"}
    other = client.post("/adapt", json={**asked, "language": "de"}, headers=others).json()
    assert other["id"] != job["id"]
    path = f"/adapt/{job['id']}"
    for answer in (
        client.get(path, headers=others),
        client.get(f"{path}/report", headers=others),
        client.get(f"{path}/events", headers=others),
        client.delete(path, headers=others),
    ):
        problem(answer, 404, "unknown_job")
    for name, count in {"ann": 1, "bob": 1, "boss": 2}.items():
        assert len(client.get("/adapt", headers={"x-caller": name}).json()["jobs"]) == count
    assert client.get(path, headers={"x-caller": "boss"}).status_code == 200


def test_cancelling(start: Callable[..., TestClient], tmp_path: Path) -> None:
    client = start()
    (tmp_path / "hold").touch()
    files = {"archive": ("x.zip", zipped("1.wav"))}
    running = client.post("/adapt", files=files, data={"language": "ur"}).json()
    waiting = client.post("/adapt", files=files, data={"language": "ur"}).json()
    while client.get(f"/adapt/{running['id']}").json()["state"] != "adapting":
        time.sleep(0.01)
    assert client.delete(f"/adapt/{waiting['id']}").json()["state"] == "cancelled"
    assert not (tmp_path / "jobs" / waiting["id"] / "upload").exists()
    started = time.monotonic()
    assert client.delete(f"/adapt/{running['id']}").status_code == 200
    done = ended(client, running)
    assert done["state"] == "cancelled"
    assert time.monotonic() - started < 5  # a second, but for a machine that is busy
    until(lambda: not (tmp_path / "jobs" / running["id"] / "upload").exists())
    assert client.delete(f"/adapt/{running['id']}").json() == done
    problem(client.delete("/adapt/nobody"), 404, "unknown_job")
    assert client.get("/models/default").json()["versions"] == ["1", "2"]
