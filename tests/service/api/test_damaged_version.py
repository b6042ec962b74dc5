"""A version that cannot be loaded: the newest good one answers, and the service says so."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service import cli
from nnpm.service.registry import serving
from tests.support.jobs import until
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import write_tiny_bundle

WAV = encode(speechlike())
Client = Callable[..., TestClient]


def damage(models: Path, version: str) -> bytes:
    file = models / "default" / version / "head.safetensors"
    before = file.read_bytes()
    file.write_bytes(b"damaged")
    return before


def answered_by(client: TestClient, language: str = "") -> str:
    answer = client.post("/predict", params={"language": language}, files={"file": WAV})
    return str(answer.json()["model"]["version"])


def test_the_newest_good_version_answers_from_the_start(
    models: Path, serve: Client, caplog: pytest.LogCaptureFixture
) -> None:
    damage(models, "2")
    write_tiny_bundle(models / "default" / "3", parent="0" * 64)  # adapted: the last resort
    with caplog.at_level(logging.ERROR, "nnpm"):
        client = serve()
    assert answered_by(client) == "1"
    told = ["default/2 cannot be loaded; default/1 (und) answers for und."]
    ready = client.get("/health/ready").json()
    assert (ready["status"], ready["warnings"]) == ("ready", told)
    assert client.get("/models").json()["models"][0]["warnings"] == told
    assert client.get("/v2/health/ready").json() == {"ready": True}
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert line.startswith("und is answered by version 1: ")


def test_an_adapted_version_answers_if_no_other_is_good(models: Path, serve: Client) -> None:
    damage(models, "1")
    damage(models, "2")
    write_tiny_bundle(models / "default" / "3", parent="0" * 64)
    assert answered_by(serve()) == "3"


def test_a_promoted_version_is_replaced_by_the_wider_route(models: Path, serve: Client) -> None:
    first = serve()
    first.post("/models/default/promote", json={"version": "1", "language": "ur"})
    damage(models, "1")
    client = serve()
    assert answered_by(client, "ur") == "2"
    (told,) = client.get("/models/default").json()["warnings"]
    assert told == "default/1 cannot be loaded; default/2 (und) answers for ur."
    assert answered_by(first, "ur") == "1"  # loaded before, and unharmed


def test_a_repaired_version_answers_again(
    models: Path, serve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "RETRY_S", 0.0)
    content = damage(models, "2")
    client = serve()
    assert answered_by(client) == "1"
    (models / "default/2/head.safetensors").write_bytes(content)
    until(lambda: answered_by(client) == "2")
    ready = client.get("/health/ready").json()
    assert ready["status"] == "ready"
    assert "warnings" not in ready


def test_the_command_line_does_the_same(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    damage(models, "2")
    clip = tmp_path / "a.wav"
    clip.write_bytes(WAV)
    assert cli.main(["predict", "--json", str(clip)]) == 0
    assert '"version":"1"' in capsys.readouterr().out
