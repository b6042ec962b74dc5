import asyncio
import time

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.linger import Linger

ANSWER: list[Message] = [
    {"type": "http.response.start", "status": 413, "headers": []},
    {"type": "http.response.body", "body": b"no"},
]


def exchange(
    body: list[Message], *, reads: int, headers: dict[bytes, bytes] | None = None
) -> list[str]:
    """Let an app read some of a body and answer; list what happened, in order."""
    events: list[str] = []
    waiting = list(body)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(reads):
            await receive()
        for message in ANSWER:
            await send(message)

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(60)
        events.append("received")
        return waiting.pop(0)

    async def send(message: Message) -> None:
        events.append(message["type"].rpartition(".")[2])

    scope = {"type": "http", "headers": list((headers or {}).items())}
    asyncio.run(Linger(app, seconds=0.1)(scope, receive, send))
    return events


def piece(*, more: bool) -> Message:
    return {"type": "http.request", "body": b"x", "more_body": more}


@pytest.mark.parametrize("reads", [0, 1, 2, 3])
def test_the_rest_is_read_before_the_answer(reads: int) -> None:
    body = [piece(more=True), piece(more=True), piece(more=False)]
    assert exchange(body, reads=reads) == ["received"] * 3 + ["start", "body"]


def test_a_client_that_left_is_not_waited_for() -> None:
    body = [piece(more=True), {"type": "http.disconnect"}]
    assert exchange(body, reads=1) == ["received", "received", "start", "body"]


def test_a_client_that_stalls_is_not_waited_for_long() -> None:
    started = time.perf_counter()
    assert exchange([piece(more=True)], reads=1) == ["received", "start", "body"]
    assert time.perf_counter() - started < 1


def test_a_client_that_waits_for_leave_to_send_is_answered_at_once() -> None:
    expect = {b"expect": b"100-continue"}
    assert exchange([piece(more=False)], reads=0, headers=expect) == ["start", "body"]
    body = [piece(more=True), piece(more=False)]
    assert exchange(body, reads=1, headers=expect) == ["received"] * 2 + ["start", "body"]
