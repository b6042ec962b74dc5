"""The service with batches of a device, which is the processor here."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service import cli
from nnpm.service.api import app as app_module
from nnpm.service.api.app import create_app
from nnpm.service.inference.device import Device
from nnpm.service.inference.graphs import Model
from nnpm.service.registry import opening
from nnpm.service.registry.serving import load_recognizer
from nnpm.service.settings import Settings, load
from tests.support.servers import wait_until_ready
from tests.support.sounds import encode, speechlike

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _onnx() -> None:
    pytest.importorskip("onnx", reason="the extra device brings onnx")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor in place of a GPU."""
    monkeypatch.setattr(
        opening.device, "cuda", lambda on_batch: Device(["CPUExecutionProvider"], on_batch)
    )


@pytest.fixture
def client(models: Path, device: None) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models=models, device="cuda", adapt=False))) as found:
        wait_until_ready(found)
        yield found


def sample(text: str, name: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def test_what_comes_during_a_run_is_answered_together(
    client: TestClient, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [encode(speechlike(1.5 + number / 100)) for number in range(9)]  # one bucket
    with TestClient(create_app(Settings(models=models, adapt=False))) as alone:
        wait_until_ready(alone)
        expected = [alone.post("/predict", content=one).json() for one in clips]
    before = client.get("/metrics").text
    held, go, real = threading.Event(), threading.Event(), Model._run_batch
    model = client.app.state.services.serving.choose().recognizer.model  # type: ignore[attr-defined]

    def run(*inputs):  # type: ignore[no-untyped-def]
        held.set()
        assert go.wait(30)
        return real(model, *inputs)

    monkeypatch.setattr(model._batches, "_run", run)

    def send(clip: bytes) -> dict[str, object]:
        response = client.post("/predict", content=clip)
        assert response.status_code == 200
        found: dict[str, object] = response.json()
        return found

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(send, clips[0])
        assert held.wait(30)
        later = [pool.submit(send, one) for one in clips[1:]]
        while len(model._batches._waiting) < 8:
            time.sleep(0.001)
        go.set()
        found = [future.result() for future in (first, *later)]
    for one, other in zip(expected, found, strict=True):
        assert one["emotion"] == other["emotion"]
        assert one["audio"] == other["audio"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-3)
    after = client.get("/metrics").text
    for name, more in (("count", 2), ("sum", 9)):
        name = f"nnpm_batch_clips_{name}"
        assert sample(after, name) - sample(before, name) == more


def test_v2_answers_as_without_batches(client: TestClient, models: Path) -> None:
    samples = [round(float(one), 4) for one in speechlike(1)]
    body = {
        "inputs": [
            {
                "name": "waveform", "datatype": "FP32", "shape": [2, 16_000],
                "data": samples + samples,
            },
            {"name": "lengths", "datatype": "INT64", "shape": [2], "data": [16_000, 9_000]},
        ]
    }  # fmt: skip
    with TestClient(create_app(Settings(models=models, adapt=False))) as alone:
        wait_until_ready(alone)
        expected = alone.post("/v2/models/default/infer", json=body).json()["outputs"]
    found = client.post("/v2/models/default/infer", json=body)
    assert found.status_code == 200, found.text
    for one, other in zip(expected, found.json()["outputs"], strict=True):
        assert (one["name"], one["shape"]) == (other["name"], other["shape"])
        assert one["data"] == pytest.approx(other["data"], abs=1e-3)


def test_it_stops_with_the_answers_that_it_owes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = client.app.state.services  # type: ignore[attr-defined]
    model, real = services.serving.choose().recognizer.model, Model._run_batch
    held, go = threading.Event(), threading.Event()

    def run(*inputs):  # type: ignore[no-untyped-def]
        held.set()
        assert go.wait(30)
        return real(model, *inputs)

    monkeypatch.setattr(model._batches, "_run", run)
    clip = encode(speechlike(1.5))
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(client.post, "/predict", content=clip) for _ in range(3)]
        assert held.wait(30)
        while len(model._batches._waiting) < 2:
            time.sleep(0.001)
        closing = pool.submit(services.pool.close)
        go.set()
        closing.result(30)
        assert [one.result(30).status_code for one in answers] == [200] * 3


def test_a_folder_is_scored_in_batches(
    device: None,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(12):
        (tmp_path / f"clips/{number:02}.wav").write_bytes(encode(speechlike(0.5 + number / 10)))
    monkeypatch.setenv("NNPM_MODELS", str(models))
    assert cli.main(["predict", str(tmp_path / "clips"), "--format", "csv"]) == 0
    alone = capsys.readouterr().out
    monkeypatch.setenv("NNPM_DEVICE", "cuda")
    assert cli.main(["predict", str(tmp_path / "clips"), "--format", "csv"]) == 0
    found = capsys.readouterr().out
    assert [line.split(",")[:2] for line in alone.splitlines()] == [
        line.split(",")[:2] for line in found.splitlines()
    ]


def test_without_a_gpu_a_command_is_one_line(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, tmp_path: Path
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    monkeypatch.setenv("NNPM_DEVICE", "cuda")
    monkeypatch.setattr(
        opening.device.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    (tmp_path / "a.wav").write_bytes(encode(speechlike()))
    for command in (["predict", str(tmp_path / "a.wav")], ["serve", "--port", "0"]):
        assert cli.main(command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("nnpm: NNPM_DEVICE is cuda, ")
        assert "pip install 'nnpm[device]'" in line
    assert cli.main(["doctor"]) == 0
    assert "model: none answers: NNPM_DEVICE is cuda" in capsys.readouterr().out


def test_the_settings_of_a_device(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert load().device == "cpu"
    assert app_module.loader(load()) is load_recognizer
    monkeypatch.setenv("NNPM_DEVICE", "cuda")
    assert load().workers >= 16
    monkeypatch.setenv("NNPM_WORKERS", "3")
    assert load().workers == 3
    monkeypatch.setenv("NNPM_DEVICE", "gpu")
    assert cli.main(["doctor"]) == 2
    assert "NNPM_DEVICE" in capsys.readouterr().err


def test_doctor_names_what_runs_the_model(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    assert cli.main(["doctor"]) == 0
    assert "  runs on: CPUExecutionProvider (NNPM_DEVICE=cpu)\n" in capsys.readouterr().out
