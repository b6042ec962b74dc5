"""``nnpm doctor`` and ``nnpm completion``."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nnpm.service import cli, settings
from nnpm.service.cli.completion import SHELLS
from nnpm.service.cli.doctor import EXTRAS
from nnpm.service.registry.registry import Registry
from tests.support.tiny_bundle import write_first_bundle

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    monkeypatch.setattr(settings, "ENV_FILE", Path(".env"))


def report(capsys: Captured) -> dict[str, object]:
    assert cli.main(["doctor", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_it_names_the_model_and_what_is_off(capsys: Captured, models: Path) -> None:
    found = report(capsys)
    assert found["model"] == {
        "folder": str(models), "ready": True, "device": "cpu",
        "provider": "CPUExecutionProvider", "name": "default", "version": "2", "language": "und",
        "emotions": ["angry", "calm", "happy", "sad"], "licence": "none: made by code",
        "calibrated": True, "outdated": [],
    }  # fmt: skip
    off = {one["what"]: one["how"] for one in found["off"]}
    assert off["rate limit"] == "NNPM_RATE_LIMIT=100/minute"
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "model: default/2 (und)" in text
    assert "rate limit: NNPM_RATE_LIMIT" in text


def test_it_names_what_an_older_base_left(capsys: Captured, models: Path) -> None:
    write_first_bundle(models / "default/3", language="ur", parent="0" * 64)
    Registry(models).promote("default", "3")
    (told,) = report(capsys)["model"]["outdated"]
    assert "nnpm adapt --bundle $NNPM_MODELS/default/2 --target DIR --language ur" in told
    assert cli.main(["doctor"]) == 0
    assert f"  {told}\n" in capsys.readouterr().out


def test_what_is_turned_on_is_not_off(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_RATE_LIMIT", "10/second")
    assert "rate limit" not in {one["what"] for one in report(capsys)["off"]}


def test_a_missing_extra_has_its_command(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "pyarrow" else real(name, *rest),
    )
    tables = report(capsys)["extras"]["tables"]
    assert (tables["installed"], tables["missing"]) == (False, ["pyarrow"])
    assert tables["install"] == "pip install 'nnpm[tables]'"


def test_no_model_is_a_finding(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(tmp_path / "none"))
    model = report(capsys)["model"]
    assert model["ready"] is False
    assert model["folder"] == str(tmp_path / "none")
    assert "There is no model" in model["error"]
    assert cli.main(["doctor"]) == 0
    assert "model: none answers: " in capsys.readouterr().out


def test_it_lists_settings_without_their_values(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNPM_PROT", "9000")
    Path(".env").write_text("NNPM_DATABASE_URL=postgresql://u:secret@h/d\nNNPM_MODELS=x\nOTHER=1\n")
    found = report(capsys)
    assert found["settings"] == {
        "environment": ["NNPM_ALLOWED_HOSTS", "NNPM_MODELS"],
        "file": ".env", "from_file": ["NNPM_DATABASE_URL"],
        "unknown": ["NNPM_PROT is not a setting. Did you mean NNPM_PORT?"],
    }  # fmt: skip
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "NNPM_PROT is not a setting" in text
    assert "secret" not in text + json.dumps(found)


def test_every_extra_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"])


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_its_script(shell: str, capsys: Captured, tmp_path: Path) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in [*cli.COMMANDS, *cli.TRAINING_COMMANDS])
    assert all(option in script for option in ("resume", "no-abstain", "level"))
    if program := shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        subprocess.run([program, "-n", path], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_options_and_files(capsys: Captured, tmp_path: Path) -> None:
    cli.main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "recording.wav").touch()

    def completed(line: str) -> set[str]:
        words = line.split(" ")
        code = (
            f"source ./script; COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); "
            f"COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT={len(line)}; "
            "_shtab_nnpm; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        return set(done.stdout.split())

    assert {"--balance", "--bundle"} >= completed("nnpm adapt --b") != set()
    assert {"fp32"} == completed("nnpm export --precision f")
    assert "recording.wav" in completed("nnpm adapt --target rec")
    assert {"predict"} == completed("nnpm pre")
    assert {"--strict"} == completed("nnpm predict --str")
    assert "recording.wav" in completed("nnpm predict rec")


def test_an_unknown_shell_is_one_line(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["completion", "tcsh"])
    assert caught.value.code == 2
    assert "bash" in capsys.readouterr().err


def test_the_file_env_is_read_after_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(
        "# ours\nNNPM_PORT=9001\nNNPM_RATE_LIMIT='10/second'\nexport NNPM_QUEUE_LIMIT=7\n"
        "NNPM_ADAPT_ROOTS=/a:/b\nNNPM_WORKERS=\nNNPM_PUBLISH=1\nPOSTGRES_PASSWORD=x\n"
    )
    monkeypatch.setenv("NNPM_PORT", "9002")
    monkeypatch.setattr(settings, "SECRETS", tmp_path)
    (tmp_path / "nnpm_queue_limit").write_text("9")
    (tmp_path / "nnpm_max_streams").write_text("5")
    own = settings.load()
    assert (own.port, own.rate_limit, own.queue_limit, own.max_streams) == (
        9002, "10/second", 7, 5
    )  # fmt: skip
    assert own.adapt_roots == (Path("/a"), Path("/b"))
    assert settings.load(port=9003).port == 9003


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"NNPM_PORT=99999\n", "NNPM_PORT is 99999"), (b"NNPM_PORT=\xff\n", "not text in UTF-8")],
)
def test_a_bad_file_env_is_named(
    content: bytes, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_bytes(content)
    with pytest.raises(settings.SettingsError, match=says):
        settings.load()
    assert os.environ.get("NNPM_PORT") is None
    assert sys.modules["nnpm.service.settings"] is settings
