"""What the training commands say when something is wrong: one line, exit 2."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnpm.training import cli
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS, write_tiny_bundle
from tests.support.tiny_network import write_whisper

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("models") / "bundle").path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIR/small: four clips of four speakers; DIR/encoder: what is fine-tuned."""
    folder = tmp_path_factory.mktemp("data") / "small"
    folder.mkdir()
    write_whisper(folder.parent / "encoder")
    rows = ["path,emotion,speaker"]
    for number, emotion in enumerate(LABELS):
        (folder / f"{number}.wav").write_bytes(encode(speechlike(0.5, seed=number)))
        rows.append(f"{number}.wav,{emotion},s{number}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder.parent


def fails(capsys: Captured, *arguments: object, code: int = 2) -> str:
    capsys.readouterr()
    try:
        found = cli.main([str(argument) for argument in arguments])
    except SystemExit as caught:
        found = int(caught.code or 0)
    output = capsys.readouterr()
    assert found == code
    assert output.out == ""
    assert output.err.count("\n") == 1, output.err
    assert output.err.startswith("nnpm")
    return output.err


def train(data: Path, tmp_path: Path, **changes: object) -> list[object]:
    options: dict[str, object] = {
        "corpora": "small", "data": data, "out": tmp_path / "run", "cache": tmp_path / "cache",
        "device": "cpu", "set": f"encoder.source={data / 'encoder'}",
    }  # fmt: skip
    pairs = (options | changes).items()
    named = [part for name, value in pairs for part in (f"--{name}", value)]
    return ["train", *named, "--set", "encoder.layers=1"]


def test_bad_usage(data: Path, tmp_path: Path, capsys: Captured) -> None:
    assert "required" in fails(capsys, "train")
    assert "invalid choice" in fails(capsys, *train(data, tmp_path, device="tpu"))
    for name, value in (("seed", -1), ("seed", "x"), ("seed", 2**32), ("threads", -2)):
        line = fails(capsys, *train(data, tmp_path, **{name: value}))
        assert f"--{name}: {value} is not a whole number" in line
    assert not (tmp_path / "run").exists()


def test_places_that_cannot_be_written_are_found_before_any_work(
    data: Path, tmp_path: Path, bundle: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "nnpm.training.source.run.load_training_data", lambda *_: pytest.fail("worked")
    )
    monkeypatch.setattr("nnpm.training.evaluation.judge", lambda *_: pytest.fail("worked"))
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file" in fails(capsys, *train(data, tmp_path, out=file))
    line = fails(capsys, *train(data, tmp_path, out=file / "deep" / "run"))
    assert f"{file} is not a folder" in line
    evaluate = ["evaluate", "--bundle", bundle, "--data", data / "small", "--predictions"]
    assert "is not a folder" in fails(capsys, *evaluate, file / "table.csv")
    assert "it is a folder" in fails(capsys, *evaluate, tmp_path)


def test_a_cache_that_cannot_be_written_is_found_before_decoding(
    data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnpm.training.data.clips.load_waveform", lambda _: pytest.fail("decoded"))
    (tmp_path / "file").write_text("")
    line = fails(capsys, *train(data, tmp_path, cache=tmp_path / "file"))
    assert str(tmp_path / "file") in line
    assert not (tmp_path / "run").exists()


def test_corpora_that_cannot_be_learnt(data: Path, tmp_path: Path, capsys: Captured) -> None:
    line = fails(capsys, *train(data, tmp_path, corpora="ravdess"))
    assert "0 recordings named as in ravdess" in line
    twice = train(data, tmp_path)
    twice[2:3] = ["small", "small"]
    assert "--corpora is small small: name each corpus only once" in fails(capsys, *twice)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('emotions = ["sad", "fear"]')
    line = fails(capsys, *train(data, tmp_path, config=recipe))
    assert "have 1 of the emotions to learn (sad); at least 2 are required" in line
    recipe.write_text('emotions = ["hapy"]')
    assert "hapy is no emotion; choose among angry" in fails(
        capsys, *train(data, tmp_path, config=recipe)
    )


def test_export_of_what_is_no_finished_run(tmp_path: Path, capsys: Captured) -> None:
    line = fails(capsys, "export", tmp_path, "--out", tmp_path / "bundle")
    assert "is not a run folder" in line


def test_an_interrupt_is_one_line(
    data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nnpm.training.source.run.load_training_data", interrupt)
    line = fails(capsys, *train(data, tmp_path), code=130)
    assert "no incomplete file is left" in line
    assert "--resume" in line


def test_evaluate_needs_no_torch(bundle: Path, data: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchaudio', 'transformers', 'onnx', 'tensorboard'):\n"
        "    sys.modules[name] = None\n"
        "from nnpm.training.cli import main\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code]
    arguments = ["evaluate", "--bundle", str(bundle), "--data", str(data / "small"), "--json"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["clips"] == 4

    arguments = ["train", "--corpora", "small", "--data", str(data), "--out", "nowhere"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs torch, which is not installed" in done.stderr


def test_a_reader_that_goes_away_is_no_error(bundle: Path, data: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "nnpm.training", "evaluate", "--json"]
    command += ["--bundle", str(bundle), "--data", str(data / "small")]
    done = subprocess.run(command, cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cli._default_cache() == Path("/somewhere/.cache/nnpm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cli._default_cache() == Path("/var/cache/nnpm")


def test_clips_of_unknown_emotions_are_left_out_with_a_warning(
    bundle: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(data / "small", folder)
    with (folder / "metadata.csv").open("a") as manifest:
        manifest.write("\n0.wav,boredom,s0")
    capsys.readouterr()
    command = ["evaluate", "--bundle", str(bundle), "--data", str(folder)]
    assert cli.main([*command, "--json"]) == 0
    output = capsys.readouterr()
    line = "mine: 1 of 5 clips left out, of emotions nnpm does not know: boredom (1)"
    assert output.err == f"nnpm: warning: {line}\n"
    document = json.loads(output.out)
    assert document["warnings"] == [line]
    assert document["clips"] == 4
    assert cli.main(command) == 0
    assert capsys.readouterr().err == f"nnpm: warning: {line}\n"


def test_a_corpus_without_a_known_emotion(bundle: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "metadata.csv").write_text("path,emotion\na.wav,boredom\n")
    message = fails(capsys, "evaluate", "--bundle", bundle, "--data", tmp_path)
    assert "boredom (1); use angry, calm, disgust" in message
