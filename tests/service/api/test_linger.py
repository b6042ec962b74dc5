import asyncio
import time

import pytest
from starlette.types import Message, Receive, Scope, Send

from nnpm.service.api.middleware.uploads import UploadLimits

LIMITS = {"max_bytes": 1000, "idle_s": 60.0, "min_bytes_per_s": 0}


def exchange(
    body: list[Message], *, reads: int, headers: dict[bytes, bytes] | None = None, status: int = 413
) -> list[str]:
    """Let an app read some of a body and answer; list what happened, in order."""
    events: list[str] = []
    waiting = list(body)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(reads):
            await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(60)
        events.append("received")
        return waiting.pop(0)

    async def send(message: Message) -> None:
        kind = message["type"].rpartition(".")[2]
        events.append("answer" if message.get("body") else "start" if kind == "start" else "end")

    scope = {
        "type": "http",
        "path": "/predict",
        "headers": [(b"content-length", b"9"), *(headers or {}).items()],
    }
    asyncio.run(UploadLimits(app, **LIMITS, drain_s=0.1)(scope, receive, send))
    return events


def piece(*, more: bool) -> Message:
    return {"type": "http.request", "body": b"x", "more_body": more}


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_the_answer_comes_at_once_and_ends_after_the_rest(reads: int) -> None:
    body = [piece(more=True), piece(more=True), piece(more=False)]
    rest = ["received"] * (3 - reads)
    wanted = ["received"] * reads + ["start", "answer", *rest, "end"]
    assert exchange(body, reads=reads) == wanted


def test_what_was_read_is_answered_in_one_piece() -> None:
    body = [piece(more=True), piece(more=False)]
    assert exchange(body, reads=2) == ["received", "received", "start", "answer"]


def test_a_request_without_a_body_is_not_asked_for_one() -> None:
    events = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    async def receive() -> Message:
        pytest.fail("there is nothing to receive")

    async def send(message: Message) -> None:
        events.append(message)

    asyncio.run(
        UploadLimits(app, **LIMITS)(
            {"type": "http", "path": "/predict", "headers": [(b"host", b"x")]}, receive, send
        )
    )
    assert len(events) == 2


def test_a_client_that_left_is_not_waited_for() -> None:
    body = [piece(more=True), {"type": "http.disconnect"}]
    assert exchange(body, reads=1) == ["received", "start", "answer", "received", "end"]


def test_a_client_that_stalls_is_not_waited_for_long() -> None:
    started = time.perf_counter()
    assert exchange([piece(more=True)], reads=1) == ["received", "start", "answer", "end"]
    assert time.perf_counter() - started < 1


def test_a_client_that_was_too_slow_is_not_waited_for() -> None:
    events = exchange([piece(more=True), piece(more=False)], reads=1, status=408)
    assert events == ["received", "start", "answer"]


def test_a_client_that_waits_for_leave_to_send_is_answered_at_once() -> None:
    expect = {b"expect": b"100-continue"}
    assert exchange([piece(more=False)], reads=0, headers=expect) == ["start", "answer"]
    body = [piece(more=True), piece(more=False)]
    wanted = ["received", "start", "answer", "received", "end"]
    assert exchange(body, reads=1, headers=expect) == wanted
