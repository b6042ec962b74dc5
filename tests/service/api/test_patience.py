import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from nnpm.service.api.errors import TooSlowError
from nnpm.service.api.middleware.uploads import UploadLimits

pytestmark = pytest.mark.slow  # processes and clocks: the same with every Python


def upload(
    pieces: Iterator[tuple[float, bytes]], *, idle_s: float, least: int, pause_s: float = 0
) -> Any:
    """Send pieces, each after a while, to an app that reads them all; return what it read."""
    read = bytearray()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            read.extend(message.get("body", b""))
            more = message.get("more_body", False)
            await asyncio.sleep(pause_s)
        assert (await receive())["type"] == "http.disconnect"

    async def receive() -> Message:
        for delay_s, piece in pieces:
            await asyncio.sleep(delay_s)
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}
        await asyncio.sleep(2.5 * idle_s)  # whoever waits for the end may wait for long
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    limits = UploadLimits(app, max_bytes=1000, idle_s=idle_s, min_bytes_per_s=least)
    asyncio.run(limits({"type": "http", "path": "/predict", "headers": []}, receive, send))
    return bytes(read)


def test_an_upload_that_goes_on_is_read() -> None:
    assert upload(iter([(0, b"ab"), (0.02, b"c"), (0.02, b"")]), idle_s=0.5, least=1) == b"abc"


def test_one_that_stalls_is_given_up() -> None:
    started = time.perf_counter()
    with pytest.raises(TooSlowError, match=r"2 bytes of the body came, then none for 0\.1 s"):
        upload(iter([(0, b"ab"), (60, b"c")]), idle_s=0.1, least=0)
    assert time.perf_counter() - started < 5


def test_one_that_trickles_is_given_up_once_it_was_waited_for() -> None:
    trickle = ((0.03, b"x") for _ in range(1000))
    started = time.perf_counter()
    with pytest.raises(TooSlowError, match="at least 100 bytes a second"):
        upload(trickle, idle_s=0.5, least=100)
    assert 0.4 < time.perf_counter() - started < 5


def test_time_that_the_service_takes_is_not_the_clients() -> None:
    pieces = iter([(0, b"x")] * 6 + [(0, b"")])
    assert upload(pieces, idle_s=0.5, least=1000, pause_s=0.15) == b"x" * 6


def test_trickles_may_be_allowed() -> None:
    assert upload(iter([(0.15, b"x")] * 5 + [(0, b"")]), idle_s=0.5, least=0) == b"x" * 5
