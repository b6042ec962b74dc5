import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm import __version__
from nnpm.service import cli
from nnpm.service.inference.audio.waveform import Limits
from tests.support.media import encode_media
from tests.support.sounds import encode, speechlike

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "clips"
    (root / "deeper").mkdir(parents=True)
    (root / "a.wav").write_bytes(encode(speechlike(1)))
    (root / "b.flac").write_bytes(b"damaged")
    (root / "deeper" / "c.OGG").write_bytes(encode(speechlike(2), container="OGG"))
    (root / "deeper" / "d.M4A").write_bytes(encode_media(speechlike(2)))
    (root / "notes.txt").write_text("not audio")
    (root / ".hidden.wav").write_bytes(b"")
    return root


def fails(capsys: Captured, *argv: str) -> str:
    try:
        code = cli.main(argv)
    except SystemExit as caught:
        code = int(caught.code or 0)
    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("nnpm")
    return output.err


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"nnpm {__version__}\n"


def test_without_a_command_it_prints_the_help(capsys: Captured) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"    {name}" in text for name in [*cli.COMMANDS, *cli.TRAINING_COMMANDS])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_help(name: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: nnpm {name} [-h]")


def test_predict_json_is_one_document(folder: Path, capsys: Captured) -> None:
    assert cli.main(["predict", "--json", "--top-k", "2", str(folder / "a.wav")]) == 0
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert answer["emotion"] == max(answer["scores"], key=answer["scores"].get)
    assert len(answer["top"]) == 2
    assert answer["model"] == {"name": "default", "version": "2", "language": "und"}
    assert "request_id" not in answer
    assert output.err == "nnpm: model default/2, licence none: made by code\n"


def test_predict_for_people(folder: Path, capsys: Captured) -> None:
    assert cli.main(["predict", str(folder / "a.wav")]) == 0
    line = capsys.readouterr().out
    assert re.fullmatch(r".*a\.wav: (angry|calm|happy|sad) 0\.\d\d\n", line)


def test_the_numbers_are_those_of_the_service(
    folder: Path, capsys: Captured, client: TestClient
) -> None:
    clip = folder / "deeper" / "c.OGG"
    options = ["--neighbours", "2", "--window-s", "1", "--hop-s", "0.5", "--no-abstain"]
    assert cli.main(["predict", "--json", *options, str(clip)]) == 0
    ours = json.loads(capsys.readouterr().out)
    query = {"neighbours": 2, "window_s": 1, "hop_s": 0.5, "abstain": False}
    theirs = client.post("/predict", params=query, content=clip.read_bytes()).json()
    del theirs["request_id"], theirs["timing_ms"], ours["timing_ms"]
    assert ours == theirs


def test_a_bundle_can_be_named_by_its_folder(models: Path, folder: Path, capsys: Captured) -> None:
    bundle = models / "default" / "1"
    clip = str(folder / "a.wav")
    assert cli.main(["predict", "--json", "--bundle", str(bundle), clip]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "1"
    assert "not a bundle" in fails(capsys, "predict", "--bundle", str(folder), clip)


def test_a_folder_is_one_json_a_line(folder: Path, capsys: Captured) -> None:
    assert cli.main(["predict", str(folder), "--json"]) == 0
    first, second, third, fourth = map(json.loads, capsys.readouterr().out.splitlines())
    assert [item["file"] for item in (first, second, third, fourth)] == [
        str(folder / name) for name in ("a.wav", "b.flac", "deeper/c.OGG", "deeper/d.M4A")
    ]
    assert first["answer"]["audio"]["duration_s"] == 1
    assert second["error"]["code"] == "not_audio"
    assert "request_id" not in second["error"]
    assert third["answer"]["audio"]["format"] == "OGG"
    assert fourth["answer"]["audio"]["format"] == "MP4"


def test_several_paths_for_people(folder: Path, capsys: Captured) -> None:
    assert cli.main(["predict", str(folder / "a.wav"), str(folder / "b.flac")]) == 0
    fine, bad = capsys.readouterr().out.splitlines()
    assert "a.wav: " in fine
    assert "b.flac: error: Unsupported audio format" in bad


def test_bad_input_is_one_line_and_2(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    assert "no such file" in fails(capsys, "predict", str(folder / "missing.wav"))
    assert "Unsupported audio format" in fails(capsys, "predict", str(folder / "b.flac"))
    (tmp_path / "empty").mkdir()
    assert "holds no audio" in fails(capsys, "predict", str(tmp_path / "empty"))
    a = str(folder / "a.wav")
    assert "--top-k" in fails(capsys, "predict", a, "--top-k", "9")
    assert "--window-s" in fails(capsys, "predict", a, "--window-s", "soon")
    assert "hop_s is 2" in fails(capsys, "predict", a, "--window-s", "1", "--hop-s", "2")
    assert "no model 'x'" in fails(capsys, "predict", a, "--model", "x")
    assert "no version '7'" in fails(capsys, "predict", a, "--model", "default/7")


def test_bad_usage_is_one_line_and_2(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "invalid choice" in fails(capsys, "dance")
    assert "PATH" in fails(capsys, "predict")
    assert "--frobnicate" in fails(capsys, "predict", "x.wav", "--frobnicate")
    assert "NNPM_PORT" in fails(capsys, "serve", "--port", "99999")
    assert "NNPM_INSECURE" in fails(capsys, "serve", "--host", "0.0.0.0")
    monkeypatch.setenv("NNPM_MODELS", "nowhere")
    assert "nowhere" in fails(capsys, "serve", "--port", "0")


def test_models_are_listed(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["models", "list"]) == 0
    assert capsys.readouterr().out == "default: 1, 2\n"
    assert cli.main(["models", "list", "--json"]) == 0
    entry = {"name": "default", "versions": ["1", "2"], "aliases": {}}
    assert json.loads(capsys.readouterr().out) == {"models": [entry]}
    assert cli.main(["models", "show", "default/1"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"version": "1"}
    assert "no model 'x'" in fails(capsys, "models", "show", "x")


def test_training_commands_are_handed_on(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    handed: list[list[str]] = []
    found = {"nnpm.training": object()}

    def take(_: str, arguments: list[str]) -> None:
        handed.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", take)
    monkeypatch.setattr("importlib.util.find_spec", found.get)
    with pytest.raises(SystemExit):
        cli.main(["train", "--corpora", "ravdess", "--help"])
    assert handed == [
        [sys.executable, "-P", "-m", "nnpm.training", "train", "--corpora", "ravdess", "--help"]
    ]
    with pytest.raises(SystemExit):
        cli.main(["adapt", "--json"])
    assert handed[1][3:] == ["nnpm.training", "adapt", "--json"]
    del found["nnpm.training"]
    assert "nnpm export needs the training package" in fails(capsys, "export", "RUN")


def test_without_torch_training_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from nnpm.training.cli import main;"
        "sys.exit(main(['train', '--corpora', 'x', '--data', '.', '--out', 'run']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "needs torch, which is not installed" in done.stderr


def test_starting_is_fast() -> None:
    code = (
        "import sys, nnpm.service.cli;"
        "heavy = {'numpy', 'fastapi', 'onnxruntime', 'pydantic', 'soundfile', 'uvicorn'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_limits_are_those_of_the_settings(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNPM_MAX_DURATION_S", "0.5")
    assert Limits().max_duration_s == 7200
    assert "at most 0.5 s" in fails(capsys, "predict", str(folder / "a.wav"))


def test_products_of_matrices_have_one_thread() -> None:
    code = """
from nnpm.service.cli import main
main(["models", "list"])
import os, sys
assert "numpy" in sys.modules
print(os.environ["OPENBLAS_NUM_THREADS"])
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.splitlines()[-1] == "1"
    early = "import sys, nnpm.service.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", early], check=False, cwd=ROOT).returncode == 0
