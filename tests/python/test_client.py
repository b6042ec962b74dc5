"""The clients, against a service with a real socket; each test runs both."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import nnpm
from nnpm.service.api import app as apps
from nnpm.service.settings import Settings
from tests.support.adaptation import CHILD
from tests.support.servers import live
from tests.support.sounds import encode, speechlike

Run = Callable[..., Any]


class Waiting:
    """An ``AsyncClient`` that is called as a ``Client`` is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._client = self._loop.run_until_complete(self._made(*args, **options))
        except nnpm.Error:
            self._loop.close()
            raise

    async def _made(self, *args: Any, **options: Any) -> nnpm.AsyncClient:
        return nnpm.AsyncClient(*args, **options)

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()

    def stream(self, *args: Any, **options: Any) -> Iterator[Any]:
        async def all_of_it() -> list[Any]:
            return [one async for one in self._client.stream(*args, **options)]

        return iter(self._loop.run_until_complete(all_of_it()))

    def __getattr__(self, name: str) -> Run:
        method = getattr(self._client, name)
        return lambda *args, **options: self._loop.run_until_complete(method(*args, **options))


@pytest.fixture(scope="module")
def url(_two_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import shutil

    top = tmp_path_factory.mktemp("service")
    shutil.copytree(_two_versions, top / "models")
    (top / "audio").mkdir()
    (top / "audio/a.wav").write_bytes(encode(speechlike()))
    with pytest.MonkeyPatch.context() as patch:
        made = apps.create_app

        def create_app(*args: Any, **options: Any) -> Any:
            return made(*args, **{**options, "adapt_command": (sys.executable, "-c", CHILD)})

        patch.setattr("tests.support.servers.create_app", create_app)
        own = Settings(models=top / "models", workers=2, adapt_roots=(top / "audio",))
        with live(own) as (address, _):
            yield f"http://{address}"


@pytest.fixture(params=[nnpm.Client, Waiting], ids=["Client", "AsyncClient"])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    with request.param(url) as client:
        yield client


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(encode(speechlike(4.0)))
    return path


def test_predict(client: Any, clip: Path) -> None:
    from_file = client.predict(clip, top_k=1, abstain=False)
    from_array = client.predict(speechlike(4.0), 16_000, emotions=["sad", "happy"])
    assert isinstance(from_file, nnpm.Answer)
    assert from_file.top[0].emotion == from_file.emotion
    assert from_array.emotion in ("sad", "happy")
    assert from_file.to_frame().index[0][0] == str(clip)
    assert from_file.request_id


def test_a_batch_has_answers_and_errors(client: Any, clip: Path) -> None:
    broken = clip.with_name("broken.wav")
    broken.write_bytes(b"nothing")
    found = client.predict_batch([clip, broken] * 30)
    assert len(found) == 60
    assert isinstance(found[58], nnpm.Answer)
    assert isinstance(found[59], nnpm.Error)
    assert (found[59].status, found[59].code) == (415, "not_audio")


def test_errors_carry_the_fields_of_a_problem(client: Any, clip: Path) -> None:
    with pytest.raises(nnpm.Error) as caught:
        client.predict(clip, top_k=99)
    error = caught.value
    assert (error.status, error.code) == (422, "bad_parameter")
    assert "99" in error.detail
    assert error.title
    assert error.request_id
    with pytest.raises(nnpm.Error, match="JSON"):
        client.predict(clip, format="csv")
    with pytest.raises(nnpm.Error, match="no such file"):
        client.predict("nowhere.wav")
    with pytest.raises(nnpm.Error, match="no such file"):
        client.predict_batch(["nowhere.wav"])


@pytest.mark.parametrize("kind", [nnpm.Client, Waiting])
def test_no_service_is_an_error_as_well(kind: Any, clip: Path) -> None:
    with kind("http://127.0.0.1:9") as client:
        assert not client.ready()
        for call in (
            lambda: client.predict(clip),
            lambda: list(client.stream(b"", 16_000)),
        ):
            with pytest.raises(nnpm.Error) as caught:
                call()
            assert (caught.value.status, caught.value.code) == (0, "unreachable")
    with pytest.raises(nnpm.Error, match="http://"):
        kind("emotion.example.org")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [(502, b"<html>bad gateway", "http_error"), (200, b"<html>", "not_understood"),
     (200, b"{}", "not_understood"), (301, b"", "http_error")],
)  # fmt: skip
def test_answers_of_others_are_errors(status: int, body: bytes, code: str, clip: Path) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, content=body))
    with nnpm.Client("http://proxy", transport=transport) as client:
        for call in (lambda: client.predict(clip), client.jobs, client.models):
            with pytest.raises(nnpm.Error) as caught:
                call()
            assert caught.value.code == code


def test_keys_and_prefix_travel(clip: Path) -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"models": []})

    transport = httpx2.MockTransport(answer)
    with nnpm.Client("https://example.org/emotion/", "secret", transport=transport) as client:
        assert client.models() == []
    assert str(seen[0].url) == "https://example.org/emotion/models"
    assert seen[0].headers["authorization"] == "Bearer secret"


def test_a_stream_gives_segments_and_the_answer(client: Any) -> None:
    samples = speechlike(8.0).astype(np.float32)
    blocks = [samples[at : at + 1600] for at in range(0, len(samples), 1600)]
    found = list(client.stream(blocks, 16_000, window_s=3, hop_s=1.5))
    *segments, last = found
    assert isinstance(last, nnpm.Answer)
    assert segments
    assert {one.start_s for one in segments} <= {one.start_s for one in last.segments}
    pcm = (samples * 32767).astype("<i2").tobytes()
    assert isinstance(list(client.stream(pcm, 16_000))[-1], nnpm.Answer)
    stereo = np.stack([samples, samples])
    assert list(client.stream(stereo, 16_000, channels=2))[-1].audio.channels == 2


@pytest.mark.parametrize(
    ("audio", "rate", "options", "said"),
    [
        (np.zeros(16_000), 1, {}, "sample_rate_hz"),
        (np.zeros(16_000), 16_000, {"window_s": 99}, "window_s"),
        (np.zeros((2, 16_000)), 16_000, {}, "shape"),
        (np.zeros(16_000, np.int64), 16_000, {}, "int64"),
        (b"", 16_000, {}, "at least 0.1 s"),
    ],
)
def test_a_stream_that_cannot_be_scored_is_an_error(client, audio, rate, options, said) -> None:
    with pytest.raises(nnpm.Error, match=said):
        list(client.stream(audio, rate, **options))


def test_what_a_stream_of_blocks_raises_is_raised(client: Any) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"\0" * 3200
        raise RuntimeError("the microphone is gone")

    with pytest.raises(RuntimeError, match="microphone"):
        list(client.stream(blocks(), 16_000))


def test_blocks_may_come_asynchronously(url: str) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"\0" * 3200
            await asyncio.sleep(0)

    async def last() -> Any:
        async with nnpm.AsyncClient(url) as client:
            return [one async for one in client.stream(blocks(), 16_000)][-1]

    assert asyncio.run(last()).reasons


@pytest.mark.slow  # processes of six jobs
def test_adapt_waits_and_reports(client: Any, clip: Path, url: str) -> None:
    seen: list[nnpm.Job] = []
    job = client.adapt(clip.parent, language="ur", progress=seen.append)
    assert job.succeeded
    assert (job.language, job.clips["accepted"]) == ("ur", 1)
    assert [one.id for one in seen] == [job.id] * len(seen)
    assert seen[-1].ended
    assert client.report(job.id)["verdict"] == "improved"
    assert client.jobs()[0].id == job.id
    started = client.adapt([clip, clip], language="ur", method="dann")
    assert not started.ended
    ended = client.wait(started.id, timeout_s=60)
    assert (ended.state, ended.succeeded) == ("rejected", False)
    assert client.cancel(ended.id).state == "rejected"
    with pytest.raises(nnpm.Error) as caught:
        client.adapt(folder_on_server="/etc", language="ur")
    assert caught.value.status == 422
    with pytest.raises(nnpm.Error, match="either"):
        client.adapt(language="ur")
    with pytest.raises(nnpm.Error) as caught:
        client.job("nobody")
    assert caught.value.status == 404


def test_a_wait_ends_in_time(url: str) -> None:
    then = "2026-01-01T00:00:00Z"
    job = {
        "id": "1", "state": "queued", "progress": 0, "name": "default", "language": "ur",
        "method": "nnpm", "created_at": then, "updated_at": then,
    }  # fmt: skip
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=job))
    with nnpm.Client(url, transport=transport) as client, pytest.raises(nnpm.Error) as caught:
        client.wait("1", timeout_s=0)
    assert caught.value.code == "timeout"


def test_models_are_shown_and_promoted(client: Any) -> None:
    assert client.ready()
    assert "2" in client.models()[0]["versions"]
    assert client.model("default")["name"] == "default"
    assert client.model("default", "1")["version"] == "1"
    assert client.promote("default", "1", "de")["aliases"]["de"]["live"] == "1"
    assert client.rollback("default", "de")["aliases"].get("de", {}).get("live") is None
    with pytest.raises(nnpm.Error) as caught:
        client.delete_model("default", "99")
    assert caught.value.status == 404
