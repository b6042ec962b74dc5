"""``nnpm models``, beside a service that runs."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from nnpm.service.cli import main
from tests.support.servers import Server


@pytest.fixture(autouse=True)
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))


def aliases(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["models", "list", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["models"][0]["aliases"]
    return found


@pytest.mark.smoke
def test_promoted_rolled_back_and_deleted(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "promote", "default/1", "--language", "urd"]) == 0
    assert "ur: live 1" in capsys.readouterr().out
    assert main(["models", "shadow", "default/2", "--language", "ur"]) == 0
    assert aliases(capsys) == {"ur": {"live": "1", "previous": None, "shadow": "2"}}
    assert main(["models", "delete", "default/1"]) == 2
    assert "live (ur)" in capsys.readouterr().err
    assert main(["models", "shadow", "default", "--off", "--language", "ur"]) == 0
    assert main(["models", "promote", "default/2", "--language", "ur"]) == 0
    assert aliases(capsys) == {"ur": {"live": "2", "previous": "1", "shadow": None}}
    assert main(["models", "rollback", "default"]) == 0
    assert main(["models", "rollback", "default", "--language", "ur"]) == 0
    assert "the default answers everywhere" in capsys.readouterr().out
    assert main(["models", "rollback"]) == 2
    assert "has been promoted" in capsys.readouterr().err
    assert main(["models", "delete", "default/1"]) == 0
    assert not (models / "default/1").exists()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["promote", "default"], "it must be NAME/VERSION"),
        (["promote", "default/9"], "no version '9'"),
        (["promote", "default/1", "--language", "!"], "BCP-47"),
        (["delete", "x/1"], "no model 'x'"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *arguments]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1


def test_what_fails_its_probe_is_not_promoted(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "default/1/probe.npz").write_bytes(b"spoilt")
    assert main(["models", "promote", "default/1", "--language", "ur"]) == 2
    assert aliases(capsys) == {}


def test_a_running_service_sees_it_within_two_seconds(
    server: Server, models: Path, clip: bytes
) -> None:
    address = server.address

    def answers() -> str:
        request = urllib.request.Request(
            f"{address}/predict?language=ur", data=clip, headers={"Content-Type": "audio/wav"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            version: str = json.load(answer)["model"]["version"]
        return version

    for action, wanted in (("promote default/1 --language ur", "1"), ("rollback default", "2")):
        code = "import sys; from nnpm.service.cli import main; sys.exit(main())"
        subprocess.run(
            [sys.executable, "-c", code, "models", *action.split()],
            env={**os.environ, "NNPM_MODELS": str(models)}, check=True, capture_output=True,
        )  # fmt: skip
        began = time.monotonic()
        while answers() != wanted:
            assert time.monotonic() - began < 5  # two seconds, but for a machine that is busy
            time.sleep(0.02)
