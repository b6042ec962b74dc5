"""WS /stream with WebM, as a browser's MediaRecorder sends it."""

import importlib.util
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from nnpm.service.inference.audio.formats import FORMATS
from nnpm.service.inference.audio.process import RemoteStream
from nnpm.service.inference.errors import AudioError, NotAudioError
from tests.support.media import encode_media
from tests.support.sounds import speechlike

HELLO = {"format": "webm"}
END = json.dumps({"end": True})
WEBM = [row.name for row in FORMATS].index("WEBM")


def recorded(seconds: float = 4, channels: int = 1) -> bytes:
    """A recording as MediaRecorder writes it: no length, no index, a cluster every 200 ms."""
    voice = speechlike(seconds, rate=48_000)
    samples = np.stack([voice] * channels, axis=1)
    live = {"live": "1", "cluster_time_limit": "200"}
    return encode_media(samples, 48_000, container="webm", codec="libopus", **live)


@pytest.fixture(scope="module")
def webm() -> bytes:
    return recorded()


def talk(socket: WebSocketTestSession, data: bytes, piece: int = 3_000) -> list[dict[str, Any]]:
    for start in range(0, len(data), piece):
        socket.send_bytes(data[start : start + piece])
    socket.send_text(END)
    told = [socket.receive_json()]
    while told[-1]["type"] == "segment":
        told.append(socket.receive_json())
    return told


def refused(socket: WebSocketTestSession, status: int, code: str, close: int) -> str:
    told = socket.receive_json()
    assert (told["type"], told["status"], told["code"]) == ("error", status, code), told
    with pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_json()
    assert caught.value.code == close
    return str(told["detail"])


@pytest.mark.parametrize("piece", [700, 100_000])
def test_the_answer_is_that_of_the_file(client: TestClient, webm: bytes, piece: int) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        final = talk(socket, webm, piece)[-1]
    whole = client.post("/predict?segments=turns", content=webm).json()
    assert final["type"] == "final"
    assert final["audio"]["format"] == whole["audio"]["format"] == "WEBM"
    assert (final["audio"]["sample_rate_hz"], final["audio"]["channels"]) == (48_000, 1)
    assert final["audio"]["duration_s"] == pytest.approx(whole["audio"]["duration_s"], abs=0.03)
    assert final["emotion"] == whole["emotion"]


def test_stereo_and_options(client: TestClient) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json({**HELLO, "window_s": 1, "hop_s": 0.5, "digits": 2})
        *segments, final = talk(socket, recorded(3, channels=2))
    assert final["audio"]["channels"] == 2
    assert len(segments) >= 4


def test_segments_come_while_it_is_recorded(client: TestClient) -> None:
    voice = speechlike(3, rate=48_000)
    pause = np.zeros(48_000, np.float32)
    data = encode_media(
        np.concatenate([voice, pause, voice]), 48_000, container="webm", codec="libopus",
        live="1", cluster_time_limit="200",
    )  # fmt: skip
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        # Each piece takes what is decoded by then, so pieces go on until a segment comes.
        with ThreadPoolExecutor(1) as reader:
            first = reader.submit(socket.receive_json)
            for start in range(0, len(data) - 2_000, 1_000):
                socket.send_bytes(data[start : start + 1_000])
                wait([first], 0.02 if start < len(data) * 3 // 4 else 1)
                if first.done():
                    break
            assert first.result(60)["type"] == "segment"  # before the end was sent


@pytest.mark.parametrize(
    ("data", "status", "code", "close"),
    [
        (b"RIFF" + bytes(100), 422, "bad_message", 1007),
        (b"\x1a\x45\xdf\xa3" + bytes(5_000), 415, "not_audio", 1007),
        (b"\x1a", 415, "not_audio", 1007),
    ],
)
def test_what_is_no_webm_is_refused(
    client: TestClient, data: bytes, status: int, code: str, close: int
) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        socket.send_bytes(data)
        socket.send_text(END)
        refused(socket, status, code, close)


def test_a_piece_without_the_first_is_refused(client: TestClient, webm: bytes) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        socket.send_bytes(webm[5_000:8_000])
        assert "the first too" in refused(socket, 422, "bad_message", 1007)


def test_an_empty_stream_is_too_short(client: TestClient) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        socket.send_text(END)
        refused(socket, 422, "too_short", 1007)


def test_a_broken_piece_is_an_error_or_a_gap(client: TestClient, webm: bytes) -> None:
    """Opus conceals much; whatever it makes of noise, the stream ends in an answer or a problem."""
    noise = np.random.default_rng(0).bytes(6_000)
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        told = talk(socket, webm[:6_000] + noise + webm[12_000:])
    assert told[-1]["type"] in ("final", "error")
    assert told[-1].get("status", 422) == 422


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        ({"format": "ogg"}, "format is 'ogg'; it must be pcm or webm."),
        ({"format": None}, "it must be pcm or webm."),
        ({"format": ["webm"]}, "it must be pcm or webm."),
        ({**HELLO, "sample_rate_hz": 48_000}, "sample_rate_hz"),
        ({**HELLO, "channels": 1}, "channels"),
        ({**HELLO, "hop_s": 3, "window_s": 2}, "hop_s is 3"),
    ],
)
def test_a_bad_hello_is_named(client: TestClient, hello: dict[str, Any], words: str) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(hello)
        assert words in refused(socket, 422, "bad_parameter", 1007)


def test_a_long_stream_ends_at_the_limit(serve: Callable[..., TestClient], webm: bytes) -> None:
    with serve(max_duration_s=2).websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        told = talk(socket, webm)[-1]
    assert (told["status"], told["code"]) == (413, "too_long")


def test_a_message_has_a_limit(serve: Callable[..., TestClient], webm: bytes) -> None:
    with serve(max_message_bytes=2_000).websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        socket.send_bytes(webm[:2_001])
        refused(socket, 422, "bad_message", 1007)


def test_without_the_extra_it_is_named(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "av" else found(name, *more),
    )
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        told = refused(socket, 501, "extra_missing", 1003)
    assert "pip install 'nnpm[media]'; or send 16-bit samples." in told


def test_its_process_ends_with_the_stream(webm: bytes) -> None:
    stream = RemoteStream(WEBM)
    child = stream._child._process
    assert sum(map(len, stream.push(webm[:10_000]))) >= 0
    stream.close()
    assert child.returncode is not None
    stream.close()  # again does nothing


@pytest.mark.parametrize("length", [0, 30])
def test_a_piece_of_a_header_is_no_recording(webm: bytes, length: int) -> None:
    stream = RemoteStream(WEBM)
    assert not list(stream.push(webm[:length]))
    with pytest.raises(NotAudioError, match="is incomplete or damaged"):
        list(stream.blocks())
    stream.close()


def test_a_process_that_dies_is_an_error_of_the_stream(webm: bytes) -> None:
    stream = RemoteStream(WEBM)
    list(stream.push(webm[:10_000]))
    stream._child._process.kill()
    stream._child._process.wait()
    with pytest.raises(AudioError, match="damaged"):
        list(stream.push(webm[10_000:]))
    stream.close()
