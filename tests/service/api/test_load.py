import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from nnpm.service.api import app as app_module
from nnpm.service.api.app import create_app
from nnpm.service.inference.audio.waveform import Recording
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.registry.serving import load_recognizer
from nnpm.service.settings import Settings
from tests.support.problems import problem
from tests.support.servers import Hook, wait_until_ready
from tests.support.sounds import encode, speechlike


def test_a_full_queue_is_503_and_the_loop_stays_alive(
    serve: Callable[..., TestClient], hook: Hook, clip: bytes
) -> None:
    client = serve(workers=1, queue_limit=1)
    release = threading.Event()
    hook.before = lambda _: release.wait(10)

    def send() -> int:
        return client.post("/predict", content=clip).status_code

    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(send) for _ in range(2)]
        while "nnpm_queue_depth 1.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        refused = client.post("/predict", content=clip)
        assert client.get("/health/live").status_code == 200
        release.set()
        assert [future.result() for future in accepted] == [200, 200]
    details = problem(refused, 503, "overloaded")
    assert "1 may" in details["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert send() == 200
    assert "nnpm_queue_depth 0.0" in client.get("/metrics").text


def test_many_at_once_get_their_own_answers(client: TestClient) -> None:
    clips = [encode(speechlike(0.2 + 0.01 * i)) for i in range(32)]

    def duration_s(clip: bytes) -> float:
        response = client.post("/predict", files={"file": clip})
        return float(response.json()["audio"]["duration_s"])

    with ThreadPoolExecutor(8) as pool:
        durations_s = list(pool.map(duration_s, clips))
    assert durations_s == [round(0.2 + 0.01 * i, 2) for i in range(32)]


def test_a_failing_job_fails_its_own_caller_only(
    serve: Callable[..., TestClient], hook: Hook, clip: bytes
) -> None:
    client = serve()

    def fail_for_short(recording: Recording) -> None:
        if recording.info.duration_s < 1:
            raise RuntimeError("secret of the machine room")

    hook.before = fail_for_short
    short = encode(speechlike(0.5))
    with ThreadPoolExecutor(4) as pool:
        responses = list(
            pool.map(lambda clip: client.post("/predict", content=clip), [short, clip] * 8)
        )
    for failed, fine in zip(responses[::2], responses[1::2], strict=True):
        details = problem(failed, 500, "internal")
        assert "secret" not in failed.text
        assert details["request_id"] in failed.headers["x-request-id"]
        assert fine.status_code == 200


def test_not_ready_until_the_model_is_loaded(models: Path, clip: bytes) -> None:
    release = threading.Event()

    def load(path: Path) -> Recognizer:
        assert release.wait(10)
        return load_recognizer(path)

    app = create_app(Settings(models=models), load=load)
    with TestClient(app) as client:
        assert client.get("/health/live").json() == {"status": "live"}
        for response in (client.get("/health/ready"), client.post("/predict", content=clip)):
            problem(response, 503, "not_ready")
            assert int(response.headers["retry-after"]) >= 1
        release.set()
        wait_until_ready(client)
        assert client.post("/predict", content=clip).status_code == 200


def test_a_model_that_cannot_be_loaded_is_not_ready_and_no_path_leaks(
    models: Path, clip: bytes
) -> None:
    for version in ("1", "2"):
        (models / "default" / version / "head.safetensors").write_bytes(b"damaged")
    with TestClient(create_app(Settings(models=models))) as client:
        while "being loaded" in (text := client.get("/health/ready").text):
            time.sleep(0.01)
        assert str(models) not in text
        response = client.post("/predict", params={"model": "default/1"}, content=clip)
        problem(response, 503, "model_unavailable")
        assert str(models) not in response.text
        problem(client.get("/models/default/1"), 503, "model_unavailable")


def test_it_gets_ready_once_the_model_is_there(
    models: Path, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "RETRY_LOADING_S", 0.02)
    models.rename(models.with_name("later"))
    with TestClient(create_app(Settings(models=models))) as client:
        while "being loaded" in client.get("/health/ready").text:
            time.sleep(0.01)
        problem(client.post("/predict", content=clip), 503, "not_ready")
        models.with_name("later").rename(models)
        wait_until_ready(client)
        assert client.post("/predict", content=clip).status_code == 200


def test_an_empty_models_folder_is_not_ready(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        while "being loaded" in (text := client.get("/health/ready").text):
            time.sleep(0.01)
        assert "the models folder is empty" in text
        assert client.get("/models").json() == {"models": []}


def test_metrics_count_what_happened(serve: Callable[..., TestClient], clip: bytes) -> None:
    client = serve()
    emotion = client.post("/predict", content=clip).json()["emotion"]
    silence = client.post("/predict", content=encode(np.zeros(16_000))).json()
    assert silence["abstained"]
    client.post("/predict", content=b"no audio")
    client.get("/nowhere")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    for line in (
        'nnpm_requests_total{route="/predict",status="200"} 2.0',
        'nnpm_requests_total{route="/predict",status="415"} 1.0',
        'nnpm_requests_total{route="unmatched",status="404"} 1.0',
        f'nnpm_answers_total{{emotion="{emotion}",model="default",version="2"}} 1.0',
        'nnpm_answers_total{emotion="none",model="default",version="2"} 1.0',
        'nnpm_abstentions_total{reason="no_speech"} 1.0',
        'nnpm_errors_total{code="not_audio"} 1.0',
        "nnpm_audio_seconds_total 2.5",
        "nnpm_queue_depth 0.0",
        "nnpm_decode_seconds_count 2.0",
        "nnpm_inference_seconds_count 2.0",
        "nnpm_queue_seconds_count 3.0",
        "nnpm_requests_in_flight 1.0",
    ):
        assert line in response.text.splitlines()


def test_what_clients_write_makes_no_series(serve: Callable[..., TestClient], clip: bytes) -> None:
    client = serve()

    def ask(name: str) -> int:
        client.get(f"/{name}")
        client.get(f"/models/{name}")
        client.request(name.upper(), "/predict")
        client.post(f"/predict?{name}={name}", content=clip, headers={"X-Request-ID": name})
        client.post(f"/predict?model={name}", content=clip)
        client.post(f"/predict?language={name}", content=clip)
        client.post(f"/predict?emotions={name}", content=clip)
        return client.get("/metrics").text.count("\n")

    ask("first")
    assert ask("second") == ask("third")


def test_two_apps_do_not_share_metrics(serve: Callable[..., TestClient], clip: bytes) -> None:
    first, second = serve(), serve()
    first.post("/predict", content=clip)
    assert "nnpm_audio_seconds_total 1.5" in first.get("/metrics").text
    assert "nnpm_audio_seconds_total 0.0" in second.get("/metrics").text
