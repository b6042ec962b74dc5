import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nnpm.service.inference.audio.waveform import Recording
from nnpm.service.predict.pool import WorkerPool
from tests.support.problems import problem
from tests.support.servers import Hook
from tests.support.sounds import encode, speechlike

CLIPS = [encode(speechlike(0.4 + 0.1 * n, seed=n)) for n in range(6)]
Files = list[tuple[str, tuple[str, bytes]]]


def form(*clips: bytes) -> Files:
    return [("files", (f"{n}.wav", clip)) for n, clip in enumerate(clips)]


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in answer.items() if k not in ("timing_ms", "request_id")}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, empty afterwards; nor is one without a name left open."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert [name for name in open_files() if str(folder) in name] == []


def open_files() -> list[str]:
    names = []
    for link in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            names.append(str(link.readlink()))
    return names


def test_the_answers_are_those_of_predict_in_order(client: TestClient, temporary: Path) -> None:
    query = {"top_k": 2, "abstain": "false"}
    response = client.post("/predict/batch", params=query, files=form(*CLIPS))
    assert response.status_code == 200
    items = response.json()["results"]
    assert [item["file"] for item in items] == [f"{n}.wav" for n in range(6)]
    for item, clip in zip(items, CLIPS, strict=True):
        assert set(item) == {"file", "answer"}
        alone = client.post("/predict", params=query, files={"file": clip}).json()
        assert without_times(item["answer"]) == without_times(alone)
        assert item["answer"]["request_id"] == response.headers["x-request-id"]


def test_each_error_stands_in_its_own_place(client: TestClient, temporary: Path) -> None:
    bad = {
        "not_audio": b"no audio at all",
        "too_short": b"",
        "damaged_audio": encode(speechlike(4), container="FLAC")[:9_000],
    }
    before = errors(client)
    response = client.post("/predict/batch", files=form(CLIPS[0], *bad.values(), CLIPS[1]))
    items = response.json()["results"]
    assert [next(k for k in item if k != "file") for item in items] == [
        "answer", "error", "error", "error", "answer",
    ]  # fmt: skip
    for item, code in zip(items[1:4], bad, strict=True):
        told = item["error"]
        assert set(told) == {"type", "title", "status", "detail", "code", "request_id"}
        assert told["code"] == code
        assert told["request_id"] == response.headers["x-request-id"]
        alone = client.post("/predict", files={"file": bad[code]})
        assert told["detail"] == alone.json()["detail"]
        assert errors(client)[code] == before.get(code, 0) + 2


def errors(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {
        line.split('"')[1]: float(line.split()[-1])
        for line in lines
        if line.startswith("nnpm_errors_total{")
    }


def test_our_own_mistake_is_an_item_too(serve: Callable[..., TestClient], hook: Hook) -> None:
    def fail_for_short(recording: Recording) -> None:
        if recording.info.duration_s < 0.45:
            raise RuntimeError("secret of the machine room")

    client = serve()
    hook.before = fail_for_short
    response = client.post("/predict/batch", files=form(*CLIPS[:2]))
    failed, fine = response.json()["results"]
    assert failed["error"]["code"] == "internal"
    assert "secret" not in response.text
    assert fine["answer"]["audio"]["duration_s"] == 0.5


@pytest.mark.parametrize("name", ["", "ä/../b.wav", 'a"b\\c.wav', "x" * 400, "two\nlines"])
def test_any_name_is_given_back_as_text(client: TestClient, name: str) -> None:
    (item,) = client.post("/predict/batch", files=[("files", (name or "blob", CLIPS[0]))]).json()[
        "results"
    ]
    assert item["file"]
    assert len(item["file"]) <= 255
    if name.isprintable() and 0 < len(name) < 255 and '"' not in name:
        assert item["file"] == name


def test_one_file_too_many_is_a_problem(serve: Callable[..., TestClient], temporary: Path) -> None:
    client = serve(max_batch_files=3)
    assert len(client.post("/predict/batch", files=form(*CLIPS[:3])).json()["results"]) == 3
    refused = client.post("/predict/batch", files=form(*CLIPS[:4]))
    assert "more than 3 files" in problem(refused, 422, "bad_form")["detail"]


def test_all_bytes_together_are_limited(serve: Callable[..., TestClient], temporary: Path) -> None:
    client = serve(max_upload_bytes=200_000)
    clip = encode(speechlike(3), subtype="PCM_16")
    assert client.post("/predict/batch", files=form(clip)).status_code == 200
    problem(client.post("/predict/batch", files=form(clip, clip, clip)), 413, "too_large")


def test_forms_that_are_none(client: TestClient, temporary: Path) -> None:
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    text = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\ntext\r\n--x--\r\n'
    open_end = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nRIFF'
    for body in (b"", b"garbage", b"--x\r\n", b"--x--\r\n", text, open_end):
        problem(client.post("/predict/batch", content=body, headers=boundary), 422, "bad_form")
    wrong = client.post("/predict/batch", files={"file": CLIPS[0]})
    assert "'file'" in problem(wrong, 422, "bad_form")["detail"]
    for kind in ("multipart/form-data", "multipart/form-data; boundary=" + "x" * 300):
        response = client.post("/predict/batch", content=b"x", headers={"Content-Type": kind})
        problem(response, 422, "bad_form")
    problem(client.post("/predict/batch", content=CLIPS[0]), 415, "bad_content_type")


def test_what_is_wrong_for_all_is_one_problem(client: TestClient) -> None:
    files = form(*CLIPS[:2])
    problem(client.post("/predict/batch?model=nope", files=files), 404, "unknown_model")
    problem(client.post("/predict/batch?top_k=9", files=files), 422, "bad_parameter")


def test_a_long_batch_waits_its_turn_and_keeps_nobody_waiting(
    serve: Callable[..., TestClient], hook: Hook
) -> None:
    """With one worker and a queue of two, thirty files are answered, and single clips between."""
    client = serve(workers=1, queue_limit=2)
    hook.before = lambda _: time.sleep(0.02)
    order: list[str] = []

    def batch() -> list[Any]:
        results = client.post("/predict/batch", files=form(*(CLIPS * 5))).json()["results"]
        order.append("batch")
        return list(results)

    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(batch)
        time.sleep(0.1)
        for _ in range(5):
            assert client.post("/predict", content=CLIPS[0]).status_code == 200
            order.append("single")
        assert all("answer" in item for item in running.result())
    assert order == ["single"] * 5 + ["batch"]


def test_a_queue_that_stays_full_is_an_error_of_the_items_that_wait(
    serve: Callable[..., TestClient], hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_turn = WorkerPool.run_in_turn
    monkeypatch.setattr(
        WorkerPool, "run_in_turn", lambda self, job: run_in_turn(self, job, patience_s=0.05)
    )
    client = serve(workers=1)

    def others_fill_the_queue(recording: Recording) -> None:
        if recording.info.duration_s == 0.6:  # the third
            monkeypatch.setattr(client.app.state.services.pool, "_queue_limit", -1)

    hook.before = others_fill_the_queue
    items = client.post("/predict/batch", files=form(*CLIPS)).json()["results"]
    assert ["answer" in item for item in items] == [True] * 3 + [False] * 3
    assert {item["error"]["code"] for item in items[3:]} == {"overloaded"}


def test_the_work_stops_when_the_client_leaves(
    serve: Callable[..., TestClient], hook: Hook, temporary: Path
) -> None:
    client = serve(workers=1)
    heard: list[float] = []
    begun = threading.Event()

    def hear(recording: Recording) -> None:
        heard.append(recording.info.duration_s)
        begun.set()
        time.sleep(0.1)

    hook.before = hear
    request = client.build_request("POST", "/predict/batch", files=form(*CLIPS))
    scope = {
        "type": "http", "method": "POST", "path": "/predict/batch", "query_string": b"",
        "headers": [(k.lower(), v) for k, v in request.headers.raw],
    }  # fmt: skip
    messages: list[Any] = [{"type": "http.request", "body": request.read()}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.to_thread(begun.wait)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    assert sent[0]["status"] == 499  # which nobody hears
    time.sleep(0.3)
    assert len(heard) == 1
    assert client.post("/predict", content=CLIPS[0]).status_code == 200


def test_an_idle_service_scores_as_many_at_once_as_it_has_workers(
    serve: Callable[..., TestClient], hook: Hook
) -> None:
    client = serve(workers=2)
    together = threading.Barrier(2)
    hook.before = lambda _: together.wait(10)
    items = client.post("/predict/batch", files=form(*CLIPS)).json()["results"]
    assert all("answer" in item for item in items)
