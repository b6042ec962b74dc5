import json
from pathlib import Path

import pytest

from nnpm.service.cli import main
from nnpm.service.keys import read_keys


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("NNPM_API_KEYS_FILE", str(path))
    return path


def run(*arguments: str) -> int:
    return main(["keys", *arguments])


def test_a_key_is_shown_once_alone_on_standard_output(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("create", "web", "--scopes", "predict", "adapt") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("nnpm_")
    assert shown.out.count("\n") == 1
    (key,) = read_keys(path)
    assert key.scopes == {"predict", "adapt"}
    assert key.id in shown.err
    assert run("list") == 0
    listed = capsys.readouterr().out
    assert "web: adapt predict" in listed
    assert shown.out.strip() not in listed
    assert key.sha256 not in listed


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create", "prometheus", "--scopes", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made.keys() == {"key", "id", "name", "scopes", "created_at", "revoked_at"}
    assert made["scopes"] == []
    assert run("revoke", made["id"]) == 0
    capsys.readouterr()
    assert run("list", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["keys"]
    assert listed["revoked_at"] is not None
    assert "key" not in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "web"), "--scopes"),
        (("create", "web", "--rotate"), "no key"),
        (("create", "anonymous", "--scopes"), "anonymous"),
        (("revoke", "web"), "no active key"),
    ],
)
def test_mistakes_are_one_line(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not path.exists() or read_keys(path) == []


def test_an_unknown_scope_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("create", "web", "--scopes", "everything")
    assert ended.value.code == 2
    assert "everything" in capsys.readouterr().err


def test_without_the_setting_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NNPM_API_KEYS_FILE")
    assert run("list") == 2
    assert "NNPM_API_KEYS_FILE" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{"])
def test_a_service_does_not_start_without_its_keys(
    path: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))
    if content is not None:
        path.write_text(content)
    assert main(["serve", "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert error.count("\n") == 1
