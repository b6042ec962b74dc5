import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from nnpm.service.api.app import create_app
from nnpm.service.settings import Settings
from tests.support.adaptation import kept
from tests.support.problems import problem
from tests.support.servers import wait_until_ready

BAD_JSON: dict[str, tuple[object, int, str]] = {
    "no folder": ({"language": "ur"}, 422, "folder is missing"),
    "elsewhere": ({"folder": "/etc", "language": "ur"}, 422, "NNPM_ADAPT_ROOTS"),
    "no language": ({"folder": "AUDIO", "language": "klingon!"}, 422, "BCP-47"),
    "no method": ({"folder": "AUDIO", "method": "magic"}, 422, "self_training"),
    "another field": ({"folder": "AUDIO", "speed": 3}, 422, "speed is not a known field"),
    "a list": ([1], 422, "The body is a list"),
    "promotion for all": ({"folder": "AUDIO", "auto_promote": True}, 422, "all languages"),
    "no such model": ({"folder": "AUDIO", "name": "x"}, 404, "There is no model"),
    "no such base": ({"folder": "AUDIO", "base": "9"}, 404, "no version '9'"),
    "seed": ({"folder": "AUDIO", "seed": -1}, 422, "seed"),
    "a link that leads out": ({"folder": "AUDIO/out"}, 422, "NNPM_ADAPT_ROOTS"),
    "a file": ({"folder": "AUDIO/a.wav"}, 422, "no such folder"),
    "NUL": ({"folder": "AUDIO/\0"}, 422, "name"),
    "long": ({"folder": "x" * 70_000}, 422, "more than 65536 bytes"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_requests_leave_nothing(
    start: Callable[..., TestClient], tmp_path: Path, case: str
) -> None:
    client = start()
    (tmp_path / "audio/out").symlink_to("/")
    asked, status, wanted = BAD_JSON[case]
    text = json.dumps(asked).replace("AUDIO", str(tmp_path / "audio"))
    headers = {"Content-Type": "application/json"}
    answer = client.post("/adapt", content=text, headers=headers)
    told = problem(answer, status, "unknown_model" if status == 404 else answer.json()["code"])
    assert wanted in told["detail"]
    assert kept(tmp_path) == []


FILE = 'files"; filename="x'
ARCHIVE = 'archive"; filename="x'
BOUNDARY = "multipart/form-data; boundary=b"


def _parts(*parts: tuple[str, str]) -> bytes:
    head = 'Content-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    body = "".join(f"--b\r\n{head.format(name, value)}" for name, value in parts)
    return (body + "--b--\r\n").encode()


BAD_FORMS: dict[str, tuple[str, bytes, str]] = {
    "no boundary": ("multipart/form-data", b"", "boundary"),
    "long boundary": (f"multipart/form-data; boundary={'b' * 300}", b"", "boundary"),
    "empty": (BOUNDARY, b"", "ends before its last boundary"),
    "no form": (BOUNDARY, b"hello", "malformed"),
    "no file": (BOUNDARY, _parts(("language", "ur")), "No file named 'archive' or 'files'"),
    "a file as text": (BOUNDARY, _parts(("files", "abc")), "'files' is text"),
    "other part": (BOUNDARY, _parts(('file"; filename="x', "a")), "must be 'archive' or 'files'"),
    "both": (
        BOUNDARY, _parts((FILE, "a"), (ARCHIVE, "a")), "one of them",
    ),
    "two archives": (BOUNDARY, _parts(*[(ARCHIVE, "a")] * 2), "send only one"),
    "many files": (BOUNDARY, _parts(*[(FILE, "a")] * 4), "More than 3 files"),
    "field twice": (BOUNDARY, _parts(("language", "ur"), ("language", "de")), "sent twice"),
    "many fields": (BOUNDARY, _parts(*[(f"f{n}", "") for n in range(40)]), "more than 32 fields"),
    "long field": (BOUNDARY, _parts(("language", "u" * 5000)), "more than 4096 bytes"),
    "unknown field": (BOUNDARY, _parts(("x", "1"), (FILE, "a")), "x is not a known field"),
    "folder": (BOUNDARY, _parts(("folder", "/x"), (FILE, "a")), "JSON"),
    "no name": (BOUNDARY, b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", "no name"),
    "broken off": (BOUNDARY, _parts((FILE, "a"))[:-8], "ends before its last boundary"),
    "another type": ("text/plain", b"hello", "Content-Type 'text/plain'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FORMS)
def test_bad_forms_leave_nothing(
    start: Callable[..., TestClient], tmp_path: Path, case: str
) -> None:
    client = start(adapt_max_files=3)
    content_type, body, wanted = BAD_FORMS[case]
    answer = client.post("/adapt", content=body, headers={"Content-Type": content_type})
    assert answer.status_code in (415, 422), answer.text
    assert wanted in problem(answer, answer.status_code, answer.json()["code"])["detail"]
    assert kept(tmp_path) == []


def test_an_upload_that_breaks_off_leaves_nothing(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start()
    sent = [
        b'--b\r\nContent-Disposition: form-data; name="archive"; filename="x"\r\n\r\n' + b"x" * 99
    ]

    async def receive() -> Message:
        if sent:
            return {"type": "http.request", "body": sent.pop(), "more_body": True}
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/adapt", "raw_path": b"",
        "query_string": b"", "headers": [(b"content-type", BOUNDARY.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "root_path": "",
    }  # fmt: skip
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert kept(tmp_path) == []


def test_too_large_an_upload_leaves_nothing(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = start(max_upload_bytes=5000)
    problem(client.post("/adapt", files={"archive": b"x" * 9000}), 413, "too_large")
    assert kept(tmp_path) == []


def test_a_full_disk_is_said(
    start: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    answer = client.post("/adapt", files={"archive": b"x"})
    assert "full" in problem(answer, 503, "storage_full")["detail"]
    assert kept(tmp_path) == []


def test_the_queue_has_an_end(start: Callable[..., TestClient], tmp_path: Path) -> None:
    client = start(adapt_workers=0, adapt_queue_limit=2)
    asked = {"folder": str(tmp_path / "audio"), "language": "ur"}
    for _ in range(2):
        assert client.post("/adapt", json=asked).json()["state"] == "queued"
    answer = client.post("/adapt", json=asked)
    assert (
        "2 adaptations are waiting; at most 2 may wait"
        in problem(answer, 503, "overloaded")["detail"]
    )
    assert answer.headers["retry-after"]


def test_without_its_extra_adaptation_says_so_and_the_rest_works(
    models: Path, monkeypatch: pytest.MonkeyPatch, clip: bytes
) -> None:
    monkeypatch.setattr("nnpm.service.jobs.service.can_adapt", lambda: False)
    with TestClient(create_app(Settings(models=models)), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        answer = client.post("/adapt", json={"folder": "/x", "language": "ur"})
        assert "nnpm[adapt]" in problem(answer, 501, "extra_missing")["detail"]
        assert client.get("/adapt").json() == {"jobs": []}
        assert client.post("/predict", content=clip).status_code == 200


def test_a_database_that_is_away_stops_adaptation_alone(
    start: Callable[..., TestClient], tmp_path: Path, clip: bytes
) -> None:
    (tmp_path / "broken").mkdir()
    client = start(database_url=f"sqlite:///{tmp_path / 'broken'}")
    problem(client.get("/adapt"), 503, "store_unavailable")
    asked = {"folder": str(tmp_path / "audio"), "language": "ur"}
    problem(client.post("/adapt", json=asked), 503, "store_unavailable")
    assert client.post("/predict", content=clip).status_code == 200
    assert kept(tmp_path) == []


def test_a_service_that_only_predicts(serve: Callable[..., TestClient]) -> None:
    response = serve(adapt=False).post("/adapt", json={"folder": "x"})
    assert (response.status_code, response.json()["code"]) == (403, "adaptation_off")
    assert response.json()["detail"] == "This service only predicts: NNPM_ADAPT is 0."
