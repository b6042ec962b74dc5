"""What is said on a stream; test_stream_wire.py looks at the network below."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from nnpm.service.inference.audio.waveform import Recording
from tests.support.keys import make_keys
from tests.support.servers import Hook
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS

HELLO = {"sample_rate_hz": 16_000, "channels": 1, "segments": "windows"}
END = json.dumps({"end": True})


def pcm(samples: np.ndarray) -> bytes:
    return bytes(np.round(samples * 32767).astype("<i2").tobytes())


def talk(
    socket: WebSocketTestSession, audio: bytes, *, message_bytes: int = 640
) -> list[dict[str, Any]]:
    """Send audio and the end; give all that comes back."""
    for start in range(0, len(audio), message_bytes):
        socket.send_bytes(audio[start : start + message_bytes])
    socket.send_text(END)
    return answers(socket)


def answers(socket: WebSocketTestSession) -> list[dict[str, Any]]:
    found = [socket.receive_json()]
    while found[-1]["type"] == "segment":
        found.append(socket.receive_json())
    return found


def error(socket: WebSocketTestSession, status: int, code: str, close: int) -> str:
    """Expect an error, and the end of the connection."""
    told = answers(socket)[-1]
    assert set(told) == {"type", "title", "status", "detail", "code", "request_id"}, told
    assert (told["type"], told["status"], told["code"]) == ("error", status, code)
    with pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_json()
    assert caught.value.code == close
    return str(told["detail"])


@pytest.mark.smoke
def test_segments_come_and_then_the_answer_of_predict(client: TestClient) -> None:
    samples = speechlike(7)
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        *segments, final = talk(socket, pcm(samples))
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_json()
    assert caught.value.code == 1000
    assert [segment["end_s"] for segment in segments] == [1.5, 3.0, 4.5, 6.0]
    for segment in segments:
        assert set(segment) == {
            "type", "start_s", "end_s", "channel", "emotion", "confidence", "scores", "reasons",
        }  # fmt: skip
        assert sum(segment["scores"].values()) == pytest.approx(1)
    alone = client.post(
        "/predict?segments=windows",
        files={"file": encode(np.round(samples * 32767) / 32767, subtype="PCM_16")},
    ).json()
    assert final.pop("type") == "final"
    assert set(final) == set(alone)
    assert list(final["scores"]) == list(LABELS)
    assert final["scores"] == pytest.approx(alone["scores"], abs=1e-3)
    assert final["audio"] == alone["audio"] | {
        "format": "PCM",
        "speech_ratio": pytest.approx(alone["audio"]["speech_ratio"], abs=0.01),
    }
    assert final["model"] == alone["model"]
    assert [(s["start_s"], s["end_s"]) for s in final["segments"]] == [
        (s["start_s"], s["end_s"]) for s in alone["segments"]
    ]


def test_a_segment_comes_when_a_turn_ends(client: TestClient) -> None:
    pause = np.zeros(16_000)
    samples = np.concatenate([pause, speechlike(2.5), pause, speechlike(3, seed=1), pause])
    with client.websocket_connect("/stream") as socket:
        socket.send_json({"sample_rate_hz": 16_000, "channels": 1})
        *segments, final = talk(socket, pcm(samples))
    spans = [(segment["start_s"], segment["end_s"]) for segment in segments]
    assert len(spans) == 2
    assert spans[0] == pytest.approx((1.0, 3.5), abs=0.25)
    assert spans[1] == pytest.approx((4.5, 7.5), abs=0.25)
    assert [(one["start_s"], one["end_s"]) for one in final["segments"]] == spans
    alone = client.post("/predict", files={"file": encode(samples, subtype="PCM_16")}).json()
    assert len(alone["segments"]) == 2
    assert final["scores"] == pytest.approx(alone["scores"], abs=0.02)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_phones_and_sound_cards(client: TestClient, rate: int, channels: int) -> None:
    samples = np.stack([speechlike(2, rate)] * channels, axis=1)
    hello = {"sample_rate_hz": rate, "channels": channels, "window_s": 1, "hop_s": 0.5}
    with client.websocket_connect("/stream") as socket:
        socket.send_json(hello)
        *segments, final = talk(socket, pcm(samples), message_bytes=rate // 50 * 2 * channels)
    assert len(segments) >= 3
    assert final["audio"]["sample_rate_hz"] == rate
    assert final["audio"]["channels"] == channels
    assert final["audio"]["duration_s"] == pytest.approx(2)


def test_all_in_one_message(client: TestClient) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO | {"window_s": 1, "hop_s": 1})
        *segments, final = talk(socket, pcm(speechlike(5)), message_bytes=1 << 20)
    assert len(segments) == 5
    assert final["type"] == "final"


def test_the_language_picks_the_version_and_a_swap_does_not_reach_an_open_stream(
    serve: Callable[..., TestClient],
) -> None:
    client = serve()
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO | {"language": "ur"})
        socket.send_bytes(pcm(speechlike(1.6)))
        assert socket.receive_json()["type"] == "segment"  # so it has begun
        body = {"version": "1", "language": "ur"}
        assert client.post("/models/default/promote", json=body).status_code == 200
        final = talk(socket, pcm(speechlike(2)))[-1]
        assert final["model"] == {"name": "default", "version": "2", "language": "und"}
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO | {"language": "ur"})
        final = talk(socket, pcm(speechlike(2)))[-1]
        assert final["model"] == {"name": "default", "version": "1", "language": "ur"}


BAD_HELLOS = {
    "no object": ("[]", "bad_message", "not a JSON object"),
    "no JSON": ("hello", "bad_message", "not a JSON object"),
    "empty": ("{}", "bad_parameter", "sample_rate_hz is missing"),
    "no channels": ('{"sample_rate_hz": 16000}', "bad_parameter", "channels is missing"),
    "slow": (json.dumps(HELLO | {"sample_rate_hz": 7999}), "bad_parameter", "8000"),
    "fast": (json.dumps(HELLO | {"sample_rate_hz": 48001}), "bad_parameter", "48000"),
    "text": (json.dumps(HELLO | {"sample_rate_hz": "16000"}), "bad_parameter", "whole number"),
    "no channel": (json.dumps(HELLO | {"channels": 0}), "bad_parameter", "channels"),
    "many channels": (json.dumps(HELLO | {"channels": 9}), "bad_parameter", "between 1 and 8"),
    "a long window": (json.dumps(HELLO | {"window_s": 11}), "bad_parameter", "window_s"),
    "a short hop": (json.dumps(HELLO | {"hop_s": 0.01}), "bad_parameter", "hop_s"),
    "a hop over the window": (
        json.dumps(HELLO | {"window_s": 1, "hop_s": 2}), "bad_parameter", "hop_s is 2"
    ),
    "a hop over the bundle's window": (
        json.dumps(HELLO | {"hop_s": 5}), "bad_parameter", "window_s (3)"
    ),
    "no number": ('{"sample_rate_hz": 16000, "channels": 1, "hop_s": NaN}', "bad_parameter", "hop"),
    "no language": (json.dumps(HELLO | {"language": "?!"}), "bad_parameter", "language"),
    "unknown": (json.dumps(HELLO | {"lang": "ur"}), "bad_parameter", "lang is not a known field"),
    "the end": (END, "bad_parameter", "sample_rate_hz is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_HELLOS)
def test_a_bad_hello_is_an_error(client: TestClient, name: str) -> None:
    text, code, said = BAD_HELLOS[name]
    with client.websocket_connect("/stream") as socket:
        socket.send_text(text)
        assert said in error(socket, 422, code, 1007)


BAD_MESSAGES = {
    "text among audio": ("text", "A text message other than"),
    "no end": ('{"end": false}', "A text message other than"),
    "an end and more": ('{"end": true, "more": 1}', "A text message other than"),
    "an odd byte": (b"\0" * 641, "641 bytes; it must be a multiple of 4"),
    "half a frame": (b"\0" * 642, "642 bytes; it must be a multiple of 4"),
    "too much": (bytes(4096), "4096 bytes; at most 2000"),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_bad_message_is_an_error(serve: Callable[..., TestClient], name: str) -> None:
    client = serve(max_message_bytes=2000)
    message, said = BAD_MESSAGES[name]
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO | {"channels": 2})
        socket.send_bytes(bytes(640))
        if isinstance(message, str):
            socket.send_text(message)
        else:
            socket.send_bytes(message)
        assert said in error(socket, 422, "bad_message", 1007)
    assert 'nnpm_streams_total{end="bad_message"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("channels", [1, 2])
def test_floats_are_named_and_integers_pass(client: TestClient, channels: int) -> None:
    hello = {"sample_rate_hz": 16_000, "channels": channels}
    samples = np.stack([speechlike(2, seed=n) for n in range(channels)], axis=1)
    with client.websocket_connect("/stream") as socket:
        socket.send_json(hello)
        socket.send_bytes(samples.astype("<f4").tobytes())
        assert "look like 32-bit floats" in error(socket, 422, "bad_message", 1007)
    noise = np.random.default_rng(0).uniform(-1, 1, samples.shape)
    for sound in (noise, 0.01 * noise, 0.4 + 0.02 * noise, 0 * noise):
        with client.websocket_connect("/stream") as socket:
            socket.send_json(hello)
            socket.send_bytes(pcm(sound))
            socket.send_json({"end": True})
            assert answers(socket)[-1]["type"] == "final"


def test_audio_before_the_hello(client: TestClient) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_bytes(bytes(640))
        assert "The first message is audio" in error(socket, 422, "bad_message", 1007)


def test_nothing_is_too_short(client: TestClient) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        socket.send_text(END)
        assert "0 s of audio" in error(socket, 422, "too_short", 1007)


def test_silence_is_an_answer(client: TestClient) -> None:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        *segments, final = talk(socket, bytes(2 * 16_000 * 5))
    assert final["emotion"] is None
    assert final["reasons"] == ["no_speech"]
    assert all(segment["reasons"] == ["no_speech"] for segment in segments)


def test_a_stream_is_no_longer_than_a_recording(serve: Callable[..., TestClient]) -> None:
    with serve(max_duration_s=2).websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        for _ in range(101):
            socket.send_bytes(bytes(640))
        assert "at most 2 s" in error(socket, 413, "too_long", 1009)


def test_whoever_says_nothing_is_not_waited_for(serve: Callable[..., TestClient]) -> None:
    client = serve(stream_idle_s=0.1)
    for said in ([], [json.dumps(HELLO)]):
        with client.websocket_connect("/stream") as socket:
            for text in said:
                socket.send_text(text)
            assert "No message came for 0.1 s" in error(socket, 408, "idle", 1008)
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        for _ in range(50):  # which are nothing too
            socket.send_bytes(b"")
        assert "No message came" in error(socket, 408, "idle", 1008)


def test_a_trickle_does_not_keep_a_stream_open(serve: Callable[..., TestClient]) -> None:
    with serve(stream_idle_s=1.0, max_duration_s=0.2).websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        for _ in range(22):
            socket.send_bytes(bytes(2))
            time.sleep(0.06)
        assert "was open for 1.2 s, the longest" in error(socket, 408, "idle", 1008)


def test_one_stream_too_many(serve: Callable[..., TestClient]) -> None:
    client = serve(max_streams=1)
    with client.websocket_connect("/stream") as first:
        first.send_json(HELLO)
        with client.websocket_connect("/stream") as second:
            assert "at most 1" in error(second, 503, "too_many_streams", 1013)
        assert "nnpm_streams_open 1.0" in client.get("/metrics").text
        assert talk(first, pcm(speechlike(1)))[-1]["type"] == "final"
    with client.websocket_connect("/stream") as third:
        third.send_json(HELLO)
        assert talk(third, pcm(speechlike(1)))[-1]["type"] == "final"
    assert "nnpm_streams_open 0.0" in client.get("/metrics").text


def test_our_own_mistake_says_nothing_of_us(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    recognizer = client.app.state.services.serving.choose().recognizer

    def fail(_: Any) -> None:
        raise RuntimeError("secret of the machine room")

    monkeypatch.setattr(recognizer.model, "score", fail)
    with client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        socket.send_bytes(pcm(speechlike(2)))
        assert "secret" not in error(socket, 500, "internal", 1011)


def test_a_full_queue_is_waited_for(
    serve: Callable[..., TestClient], hook: Hook, clip: bytes
) -> None:
    """A stream outlives a moment in which others fill the queue."""
    client = serve(workers=1, queue_limit=0)
    entered, release = threading.Event(), threading.Event()

    def hold(_: Recording) -> None:
        entered.set()
        release.wait(10)

    def ask() -> int:
        while (status := client.post("/predict", content=clip).status_code) == 503:
            time.sleep(0.01)  # the stream itself fills the queue for a moment
        return int(status)

    hook.before = hold
    with ThreadPoolExecutor(1) as pool, client.websocket_connect("/stream") as socket:
        socket.send_json(HELLO)
        socket.send_bytes(pcm(speechlike(1.6)))
        assert socket.receive_json()["type"] == "segment"
        other = pool.submit(ask)
        assert entered.wait(10)
        assert client.post("/predict", content=clip).status_code == 503
        socket.send_bytes(pcm(speechlike(1.6)))
        release.set()
        assert other.result() == 200
        assert socket.receive_json()["end_s"] == 3.0


def test_a_stream_wants_a_key_for_predicting(
    serve: Callable[..., TestClient], tmp_path: Any
) -> None:
    keys = make_keys(tmp_path / "keys.json")
    client = serve(api_keys_file=tmp_path / "keys.json")
    with client.websocket_connect("/stream", headers=keys["predict"]) as socket:
        socket.send_json(HELLO)
        assert talk(socket, pcm(speechlike(1)))[-1]["type"] == "final"
    for headers, status in (({}, 401), (keys["adapt"], 403)):
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("/stream", headers=headers),
        ):
            pass
        assert caught.value.status_code == status


def test_metrics_and_request_id(serve: Callable[..., TestClient]) -> None:
    client = serve()
    with client.websocket_connect("/stream", headers={"X-Request-ID": "call-7"}) as socket:
        socket.send_json(HELLO)
        *_, final = talk(socket, pcm(speechlike(4)))
    assert final["request_id"] == "call-7"
    text = client.get("/metrics").text
    emotion = final["emotion"]
    for line in (
        'nnpm_streams_total{end="final"} 1.0',
        "nnpm_stream_segments_total 2.0",
        "nnpm_stream_lag_seconds_count 2.0",
        "nnpm_audio_seconds_total 4.0",
        f'nnpm_answers_total{{emotion="{emotion}",model="default",version="2"}} 1.0',
    ):
        assert line in text.splitlines()
