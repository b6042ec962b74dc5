"""What clients may do to a real server below HTTP: slow ones, huge heads, bad HTTP, crowds."""

import contextlib
import http.client
import json
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import websockets.sync.client

from tests.support.keys import make_keys
from tests.support.problems import no_leak
from tests.support.servers import Server, serving
from tests.support.sounds import encode, speechlike

pytestmark = pytest.mark.slow  # processes and clocks: the same with every Python

TIMEOUT_S = 1.0
MOST = 12
"""Connections of the server here."""

IMPATIENT = """
from nnpm.service.api import server
from nnpm.service.cli import serve
server.WRITE_TIMEOUT_S = serve.SHUTDOWN_S = 1
"""

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n"


@pytest.fixture(scope="module")
def server(_two_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("hostile")
    models = Path(shutil.copytree(_two_versions, root / "models"))
    temporary = root / "temporary"
    temporary.mkdir()
    settings = {
        "NNPM_HEAD_TIMEOUT_S": str(TIMEOUT_S),
        "NNPM_BODY_TIMEOUT_S": str(TIMEOUT_S),
        "NNPM_MAX_CONNECTIONS": str(MOST),
        "TMPDIR": str(temporary),
    }
    with serving(models, root, IMPATIENT, **settings) as server:
        yield server
        assert list(temporary.iterdir()) == []


def rss_mib(server: Server) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float
    """From the first byte that was sent to the end of the connection."""


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):  # it closed while we were sending
        while piece := connection.recv(65536):
            received += piece
    return received


def talk(server: Server, *pieces: bytes, pause_s: float = 0) -> Answer | None:
    """Send pieces on a connection of their own; None where nothing was answered."""
    with connect(server) as connection:
        started = time.perf_counter()
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        received = rest(connection)
        seconds = time.perf_counter() - started
    if not received:
        return None
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), headers, body, seconds)


def problem(answer: Answer | None, status: int, code: str) -> str:
    """Check that an answer is a problem of this kind, as all are; return its detail."""
    assert answer is not None
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    body = json.loads(answer.body)
    assert body.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (body["status"], body["code"]) == (status, code)
    assert answer.headers["x-request-id"] == body["request_id"]
    no_leak(answer.body.decode())
    no_leak(str(answer.headers))
    return str(body["detail"])


def get(path: str, *, close: bool = False) -> bytes:
    connection = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{connection}\r\n".encode()


def is_unharmed(server: Server) -> bool:
    answer = talk(server, get("/health/ready", close=True))
    return answer is not None and answer.status == 200


NO_HTTP = {
    "text": b"hello, is anybody there?\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) + b"\r\n\r\n",
    "no host": b"GET /models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost: x\r\nhello\r\n\r\n",
    "nul in a header": b"GET / HTTP/1.1\r\nHost: x\r\na: \0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "length in words": HEAD + b"Content-Length: many\r\n\r\n",
    "unknown coding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "spaces in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "smuggled": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_HTTP)
def test_what_is_no_http_is_a_problem_like_any_other(server: Server, kind: str) -> None:
    problem(talk(server, NO_HTTP[kind]), 400, "bad_request")
    assert is_unharmed(server)


def test_nothing_is_smuggled_behind_a_body_of_two_lengths(server: Server) -> None:
    lengths = b"Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    answer = talk(server, HEAD + lengths + get("/health/live"))
    assert "send one of them" in problem(answer, 400, "bad_request")
    assert answer is not None
    assert answer.headers["connection"] == "close"
    assert is_unharmed(server)


def test_a_body_that_turns_into_garbage(server: Server) -> None:
    body = b"4\r\nRIFF\r\nthis is no chunk\r\n"
    problem(talk(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body), 400, "bad_request")
    assert is_unharmed(server)


HUGE_HEADS = {
    "1 MB header": HEAD + b"a: " + b"x" * (1 << 20) + b"\r\n\r\n",
    "1 MB header, complete": HEAD + b"a: " + b"x" * 200_000 + b"\r\n\r\n",
    "10,000 headers": HEAD + b"".join(b"h%d: v\r\n" % n for n in range(10_000)) + b"\r\n",
    "1 MB path": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "1 MB of no line": b"x" * (1 << 20),
    "1 MB of empty lines": b"\r\n" * (1 << 19),
    "1 MB of folded lines": HEAD + b"a: b\r\n" + b" c\r\n" * 250_000 + b"\r\n",
}


@pytest.mark.parametrize("size", [1 << 30, 1000], ids=["at once", "in pieces"])
@pytest.mark.parametrize("kind", HUGE_HEADS)
def test_huge_heads_are_cut_off_in_little_memory(server: Server, kind: str, size: int) -> None:
    head = HUGE_HEADS[kind]
    pieces = [head[start : start + size] for start in range(0, len(head), size)]
    before_mib = rss_mib(server)
    for _ in range(3):
        answer = talk(server, *pieces)
        if kind == "1 MB of empty lines":
            assert answer is None or answer.status in (400, 431)
        elif answer is not None:  # else the reset was faster than the answer
            assert "32768" in problem(answer, 431, "head_too_large")
            assert answer.seconds < TIMEOUT_S + 4
    assert rss_mib(server) - before_mib < 16
    assert is_unharmed(server)


def test_many_headers_and_a_long_path_that_fit_are_refused_too(server: Server) -> None:
    end = b"Connection: close\r\n\r\n"
    many = HEAD + b"".join(b"h%d: v\r\n" % n for n in range(150)) + end
    assert "at most 100" in problem(talk(server, many), 431, "head_too_large")
    long = b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n" + end
    assert "at most 8192" in problem(talk(server, long), 414, "target_too_long")


def test_a_head_that_comes_slowly_is_given_up(server: Server) -> None:
    assert "1 s" in problem(talk(server, HEAD), 408, "too_slow")
    answer = talk(server, *(bytes([byte]) for byte in HEAD[:12]), pause_s=0.2)  # drop by drop
    assert answer is None or problem(answer, 408, "too_slow")
    started = time.perf_counter()
    assert talk(server) is None  # who says nothing is told nothing
    assert TIMEOUT_S * 0.9 < time.perf_counter() - started < TIMEOUT_S + 4


def test_the_next_head_of_a_connection_is_timed_as_well(server: Server) -> None:
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(get("/health/live"))
            received = b""
            while not received.endswith(b'{"status":"live"}'):
                received += connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 200")
        started = time.perf_counter()
        connection.sendall(get("/health/live")[:20])
        assert rest(connection).startswith(b"HTTP/1.1 408")
        assert TIMEOUT_S * 0.9 < time.perf_counter() - started < TIMEOUT_S + 4


def test_a_body_that_stalls_or_trickles_is_given_up(server: Server) -> None:
    head = HEAD + b"Content-Length: 90000\r\n\r\n"
    assert "4 bytes of the body came" in problem(talk(server, head + b"RIFF"), 408, "too_slow")
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nRIFF\r\n"
    assert "4 bytes of the body came" in problem(talk(server, chunked), 408, "too_slow")
    form = head.replace(b"audio/wav", b"multipart/form-data; boundary=x")
    problem(talk(server, form + b"--x\r\n"), 408, "too_slow")
    json_ = head.replace(b"/predict", b"/models/default/promote").replace(b"9000", b"900")
    problem(talk(server, json_.replace(b"audio/wav", b"application/json") + b"{"), 408, "too_slow")
    trickle = talk(server, head, *[b"x" * 100] * 10, pause_s=0.2)
    if trickle is not None:  # else it was cut off in the midst of our sending
        assert "1000 bytes a second" in problem(trickle, 408, "too_slow")
    assert is_unharmed(server)


def test_good_clients_are_not_held_up(server: Server) -> None:
    """A large upload right behind its head, also where the head ends between two pieces."""
    wav = encode(speechlike(10), subtype="DOUBLE")
    assert len(wav) > 1 << 20
    head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(wav)
    for cut in (0, len(head) - 1, len(head) - 2, len(head) - 3, len(head)):
        answer = talk(server, head[:cut], head[cut:] + wav, pause_s=0.05)
        assert answer is not None
        assert answer.status == 200, (cut, answer)
    pieces = [head[n : n + 1] for n in range(len(head))]
    answer = talk(server, *pieces, wav)
    assert answer is not None
    assert answer.status == 200


def test_who_reads_nothing_is_cut_off(server: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", server.port))
        # more than the kernel takes off our hands
        connection.sendall(get("/docs/swagger-ui-bundle.js") * 20)
        time.sleep(2.5)  # WRITE_TIMEOUT_S is 1 here
        received = rest(connection)
    length = int(received.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert length > 1_000_000
    assert len(received) < 15 * length


def test_a_crowd_is_told_so_and_health_is_answered(server: Server) -> None:
    ready, models = get("/health/ready", close=True), get("/models", close=True)
    with contextlib.ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(connect(server))
        answer = talk(server, models)
        assert str(MOST) in problem(answer, 503, "too_many_connections")
        assert answer is not None
        assert answer.headers["retry-after"] == "5"
        assert answer.headers["connection"] == "close"
        health = talk(server, ready)
        assert health is not None
        assert health.status == 200
        problem(talk(server, handshake()), 503, "too_many_connections")
        for _ in range(70):  # far beyond the most, nobody is even told
            stack.enter_context(connect(server))
        assert talk(server, ready) is None
    deadline = time.monotonic() + 5
    while not is_unharmed(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_whoever_has_no_key_is_refused_before_the_upload(models: Path, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys.json")
    with serving(models, tmp_path, NNPM_API_KEYS_FILE=str(tmp_path / "keys.json")) as server:
        _send_without_a_key(server)
        for headers, status in (({}, 401), (keys["adapt"], 403), (keys["predict"], 415)):
            client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            client.request("POST", "/predict", body=bytes(30 << 20), headers=headers)
            assert client.getresponse().status == status
            client.close()
        problem(talk(server, handshake()), 401, "key_missing")
        key = keys["predict"]["Authorization"].encode()
        foreign = handshake(b"Authorization: " + key, b"Origin: https://evil.example")
        problem(talk(server, foreign), 403, "foreign_origin")
        log = server.log.read_text()
    assert "ERROR" not in log
    assert key.decode() not in log


ECHO = """
from fastapi import WebSocket
from nnpm.service.cli import serve
make = serve.create_app
def with_echo(*args, **kwargs):
    async def echo(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()
    app = make(*args, **kwargs)
    app.add_api_websocket_route("/echo", echo)
    return app
serve.create_app = with_echo
"""


def test_a_websocket_is_no_head_that_comes_slowly(models: Path, tmp_path: Path) -> None:
    with serving(models, tmp_path, ECHO, NNPM_HEAD_TIMEOUT_S="0.5") as server:
        address = f"ws://127.0.0.1:{server.port}/echo"
        with websockets.sync.client.connect(address) as websocket:
            time.sleep(1.5)
            websocket.send("still there?")
            assert websocket.recv(timeout=5) == "still there?"


def handshake(*headers: bytes) -> bytes:
    start = (b"GET /stream HTTP/1.1", b"Host: localhost", b"Upgrade: websocket")
    more = (b"Connection: Upgrade", b"Sec-WebSocket-Version: 13")
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return b"\r\n".join([*start, *more, key, *headers, b"", b""])


def _send_without_a_key(server: Server) -> None:
    with connect(server) as connection:
        started = time.perf_counter()
        connection.sendall(HEAD + b"Content-Length: 500000000\r\n\r\n" + bytes(1 << 20))
        answer = connection.recv(65536)
        assert time.perf_counter() - started < 5  # not once the upload is over, or given up
        assert answer.startswith(b"HTTP/1.1 401")
        before_mib = rss_mib(server)
        for _ in range(100):
            connection.sendall(bytes(1 << 20))
        assert rss_mib(server) - before_mib < 30  # what lies in buffers on its way
