"""Streams over a real socket: clients that leave, stall, hurry or say strange things."""

import asyncio
import contextlib
import json
import socket
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection as Socket
from websockets.sync.client import connect

from nnpm.service.api import server as websocket
from nnpm.service.settings import Settings
from tests.support.servers import live
from tests.support.sounds import speechlike

HELLO = json.dumps({"sample_rate_hz": 16_000, "channels": 1, "segments": "windows"})
OFTEN = json.dumps({"sample_rate_hz": 16_000, "channels": 1, "window_s": 0.5, "hop_s": 0.1})
END = json.dumps({"end": True})


def pcm(duration_s: float) -> bytes:
    return bytes(np.round(speechlike(duration_s) * 32767).astype("<i2").tobytes())


UPGRADE = (
    b"GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""A client that does nothing by itself."""


@pytest.fixture
def start(_two_versions: Path) -> Iterator[Callable[..., str]]:
    """A service of the test's own; gives host:port."""
    with contextlib.ExitStack() as stack:

        def begin(*, send_buffer_bytes: int | None = None, **settings: Any) -> str:
            own = Settings.model_validate({"models": _two_versions, "workers": 2, **settings})
            address, _ = stack.enter_context(live(own, send_buffer_bytes=send_buffer_bytes))
            return address

        begin.stop = stack.close  # type: ignore[attr-defined]
        yield begin


def url(address: str) -> str:
    return f"ws://{address}/stream"


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def wait_for(address: str, name: str, value: float, seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while (found := metric(address, name)) != value:
        assert time.monotonic() < deadline, f"{name} is {found}"
        time.sleep(0.05)


def until_end(client: Socket) -> list[dict[str, Any]]:
    found = [json.loads(client.recv(10))]
    while found[-1]["type"] == "segment":
        found.append(json.loads(client.recv(10)))
    return found


def test_a_stream_from_hello_to_goodbye(start: Callable[..., str]) -> None:
    address = start()
    with connect(url(address)) as client:
        client.send(HELLO)
        audio = pcm(5)
        for piece in range(0, len(audio), 640):
            client.send(audio[piece : piece + 640])
        client.send(END)
        *segments, final = until_end(client)
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(10)
    assert [segment["end_s"] for segment in segments] == [1.5, 3.0, 4.5]
    assert final["type"] == "final"
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1000


def test_a_client_that_is_gone_leaves_nothing(start: Callable[..., str]) -> None:
    """Whether it says so or not, and whatever it has sent by then."""
    address = start()
    for said in ([], [HELLO], [HELLO, pcm(0.5)], [HELLO, pcm(4)], [HELLO, pcm(4), END]):
        for politely in (True, False):
            with connect(url(address)) as client:
                for message in said:
                    client.send(message)
                client.close(1001) if politely else reset(client)
    wait_for(address, "nnpm_streams_open", 0)
    wait_for(address, "nnpm_queue_depth", 0)
    assert metric(address, "nnpm_errors_total") == 0
    ends = metric(address, 'nnpm_streams_total{end="left"}')
    assert ends + metric(address, 'nnpm_streams_total{end="final"}') == 10


def reset(client: Socket) -> None:
    """Vanish: no closing handshake, and a reset instead of an end."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


@pytest.mark.parametrize("politely", [True, False])
def test_the_work_ends_with_the_client(start: Callable[..., str], politely: bool) -> None:
    """Two minutes of audio are on their way; at most a window is scored after the end."""
    address = start(workers=1, max_message_bytes=1 << 20)
    audio = pcm(30)
    with (
        contextlib.suppress(ConnectionClosed),
        connect(url(address), close_timeout=0.5) as client,
    ):
        client.send(OFTEN)
        for _ in range(4):
            client.send(audio)
        client.close(1001) if politely else reset(client)
    wait_for(address, "nnpm_streams_open", 0)
    done = metric(address, "nnpm_stream_segments_total")
    assert done < 4 * 300 * 0.9
    time.sleep(0.3)
    assert metric(address, "nnpm_stream_segments_total") == done


def test_a_message_over_the_limit_ends_the_connection(start: Callable[..., str]) -> None:
    address = start(max_message_bytes=10_000)
    for pieces in ([bytes(10_001)], [bytes(6_000), bytes(6_000)]):
        with connect(url(address)) as client:
            client.send(HELLO)
            client.send(pieces)  # the second time as one message in two fragments
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(10)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009
    wait_for(address, "nnpm_streams_open", 0)


def test_a_frame_that_is_none_ends_the_connection(start: Callable[..., str]) -> None:
    address = start()
    for junk in (b"\xff" * 64, b"\x83\x00", b"\x81\x05hello", b"GET / HTTP/1.1\r\n\r\n"):
        with connect(url(address)) as client:
            client.send(HELLO)
            client.socket.sendall(junk)
            with pytest.raises(ConnectionClosed):
                client.recv(10)
    wait_for(address, "nnpm_streams_open", 0)


def test_text_that_is_no_text(start: Callable[..., str]) -> None:
    with connect(url(start())) as client:
        client.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1007


def test_a_client_that_hurries_is_held_up(start: Callable[..., str]) -> None:
    """It sends ten minutes at once: what the service has not heard waits at the sender."""
    address = start(workers=1)
    audio = pcm(30)
    hello = json.dumps({"sample_rate_hz": 16_000, "channels": 1, "window_s": 0.5, "hop_s": 0.5})

    async def send_all() -> tuple[float, int]:
        async with connect_async(url(address), max_size=None, write_limit=1 << 16) as client:
            await client.send(hello)
            reader = asyncio.create_task(_drain(client))
            largest_lead_s = 0.0
            for half in range(20):
                for piece in range(0, len(audio), 64_000):
                    await client.send(audio[piece : piece + 64_000])
                segments = await asyncio.to_thread(metric, address, "nnpm_stream_segments_total")
                largest_lead_s = max(largest_lead_s, (half + 1) * 30 - segments / 2)
            await client.send(END)
            return largest_lead_s, await reader

    largest_lead_s, num_segments = asyncio.run(send_all())
    assert num_segments >= 20 * 30 * 2 - 2
    # Sockets of the kernel hold some MB, at 32 kB a second; the service a message or two.
    assert largest_lead_s < 400


async def _drain(client: ClientConnection) -> int:
    count = 0
    while json.loads(await client.recv())["type"] == "segment":
        count += 1
    return count


def test_a_client_that_does_not_read_is_dropped(
    start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "GOODBYE_S", 0.2)
    address = start(stream_stall_s=0.3, send_buffer_bytes=4096)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = address.split(":")
    plain.connect((host, int(port)))
    audio = pcm(8)
    with connect(url(address), sock=plain, max_queue=1) as client:
        with contextlib.suppress(ConnectionClosed, OSError):
            client.send(OFTEN)
            for _ in range(40):
                client.send(audio)
        wait_for(address, 'nnpm_streams_total{end="stalled"}', 1)
        wait_for(address, "nnpm_streams_open", 0)
        time.sleep(0.3)
        assert _is_cut_off(plain)


def _is_cut_off(plain: socket.socket) -> bool:
    try:
        for _ in range(20):
            plain.sendall(b"\x8a\x80\0\0\0\0")  # a pong that nobody asked for
            time.sleep(0.05)
    except OSError:
        return True
    return False


def test_pings_are_not_answered_without_end_to_a_client_that_does_not_read(
    start: Callable[..., str],
) -> None:
    """They wait in the network like everything else that it sends."""
    host, port = start(send_buffer_bytes=4096, stream_idle_s=60).split(":")
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect((host, int(port)))
        plain.sendall(UPGRADE)
        assert b" 101 " in plain.recv(4096)
        plain.settimeout(1)
        pings, sent = b"\x89\xfd\0\0\0\0".ljust(131, b"x") * 500, 0
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                plain.sendall(pings)
                sent += len(pings)
    assert sent < 30 << 20  # of 65 MB


def test_a_silent_peer_is_found_by_pings(
    start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_S", 0.1)
    monkeypatch.setattr(websocket, "PONG_S", 0.2)
    monkeypatch.setattr(websocket, "GOODBYE_S", 0.1)
    address = start()
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(UPGRADE)
        plain.settimeout(5)
        got = b""
        while piece := plain.recv(4096):  # until the server closes
            got += piece
    assert b"\x89\x04" in got  # a ping of four bytes
    assert b"keepalive ping timeout" in got
    wait_for(address, "nnpm_streams_open", 0)
    assert metric(address, 'nnpm_streams_total{end="left"}') == 1


def test_the_end_of_the_service_is_said(start: Callable[..., str]) -> None:
    with connect(url(start())) as client:
        client.send(HELLO)
        client.send(pcm(2))
        assert json.loads(client.recv(10))["type"] == "segment"
        start.stop()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(5)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012


def test_segments_come_within_300_ms_on_eight_lines(start: Callable[..., str]) -> None:
    """In real time, 20 ms a message: from the last sample of a hop sent to its segment."""
    address = start()
    hello = json.dumps({"sample_rate_hz": 8_000, "channels": 1, "window_s": 1, "hop_s": 0.5})
    audio = np.round(speechlike(3, 8_000) * 32767).astype("<i2").tobytes()

    async def line(delay_s: float) -> list[float]:
        await asyncio.sleep(delay_s)
        async with connect_async(url(address)) as client:
            await client.send(hello)
            started = time.perf_counter()
            lags: list[float] = []

            async def listen() -> None:
                while (answer := json.loads(await client.recv()))["type"] == "segment":
                    lags.append(time.perf_counter() - started - answer["end_s"])

            reader = asyncio.create_task(listen())
            for index, piece in enumerate(range(0, len(audio), 320)):
                await asyncio.sleep(started + 0.02 * (index + 1) - time.perf_counter())
                await client.send(audio[piece : piece + 320])
            await client.send(END)
            await reader
            return lags

    async def all_lines() -> list[list[float]]:
        return await asyncio.gather(*(line(0.06 * n) for n in range(8)))

    lags = [lag for line_lags in asyncio.run(all_lines()) for lag in line_lags]
    assert len(lags) >= 8 * 4
    assert np.median(lags) < 0.3
