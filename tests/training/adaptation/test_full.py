"""``nnpm adapt --full`` from a finished run to a bundle, and what it refuses."""

import builtins
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.bundle import Bundle
from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.features import Encoder, extract_features
from nnpm.training.cli import main
from tests.training.adaptation.test_command import tensors

Captured = pytest.CaptureFixture[str]
MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def trained(make_once: MakeOnce, finished: Path, cache: Path) -> Bundle:
    """The bundle of the finished run."""

    def export(out: Path) -> None:
        command = ["export", str(finished), "--out", str(out), "--cache", str(cache)]
        assert main([*command, "--precision", "fp32"]) == 0

    return bundles.load(make_once("models/trained/1", export))


@pytest.fixture
def arguments(
    trained: Bundle, finished: Path, tiny_corpus: Path, voices: Path, cache: Path, tmp_path: Path
) -> dict[str, object]:
    settings = tmp_path / "full.toml"
    settings.write_text("steps = 8\nfew_clips = 20\n[full]\nsteps = 3\n")
    return {
        "bundle": trained.path, "target": voices, "out": tmp_path / "bundle", "language": "ur",
        "config": settings, "run": finished, "source": tiny_corpus, "cache": cache,
    }  # fmt: skip


def command(arguments: dict[str, object]) -> list[str]:
    pairs = [str(part) for name, value in arguments.items() for part in (f"--{name}", value)]
    return ["adapt", "--full", "--force", "--json", *pairs]


def test_encoder_head_and_memory_are_new_and_nothing_of_a_clip_is_kept(
    arguments, trained: Bundle, voices: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "private recordings"
    folder.mkdir()
    for number, path in enumerate(sorted(voices.iterdir())):
        shutil.copy(path, folder / f"patient{number:02}.wav")
    capsys.readouterr()
    assert main(command(arguments | {"target": folder})) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["full"] is True
    assert (report["clips"]["accepted"], report["windows"]) == (24, 24)
    assert list(report["seconds"]) == ["fine-tune", "listen", "adapt", "judge", "publish"]
    assert report["answered_share"]["after"] >= report["answered_share"]["before"]

    out = tmp_path / "bundle"
    bundle = bundles.load(out)
    assert bundle.card.parent == (trained.path / "bundle.sha256").read_text()[:64]
    assert bundle.labels == trained.labels
    assert "--full --run RUN --source DIR" in (out / "README.md").read_text()
    assert "Encoder and head were trained" in (out / "README.md").read_text()
    encoders = [Encoder(found.path / "model.onnx", 0, 0) for found in (trained, bundle)]
    pooled = [
        extract_features(folder, encoder, 3.0, AdaptConfig(), threads=1).target().pooled
        for encoder in encoders
    ]
    assert np.abs(pooled[0] - pooled[1]).max() > 1e-4
    assert len(bundle.memory().features) == len(trained.memory().features)
    assert not np.array_equal(bundle.memory().features, trained.memory().features)
    recordings = [decode(path) for path in sorted(folder.iterdir())]
    for side, served in (("before", trained), ("after", bundle)):
        recognizer = Recognizer(served)
        answered = sum(recognizer.answer(one).emotion is not None for one in recordings)
        assert report["answered_share"][side] == pytest.approx(answered / 24, abs=0.05)

    head = bundle.head()
    secrets = [*pooled, head.standardise(pooled[1]), head.project(head.standardise(pooled[1]))]
    for path in out.iterdir():
        data = path.read_bytes()
        for word in (b"patient", b"private recordings", str(tmp_path).encode()):
            assert word not in data, (path, word)
        for name, array in tensors(path).items():
            for rows in secrets:
                width = rows.shape[1]
                if array.size < width or array.size % width:
                    continue
                for matrix in (array.reshape(-1, width), array.reshape(width, -1).T):
                    assert np.abs(matrix[:, None] - rows[None]).max(2).min() > 1e-3, (path, name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "nowhere"}, "nowhere is not a run folder: run.json cannot be read"),
        ({"source": "nowhere"}, "--source is nowhere: there is no such folder"),
        ({"target": "nowhere"}, "there is no folder nowhere"),
        ({"run": "seed"}, "its seed is another (5; the card says 0); give the run that"),
        ({"run": "corpora"}, "its corpora is another (other; the card says tiny); give the run"),
        ({"run": "config"}, "did not make the base"),
        ({"run": "labels"}, "labels knows angry, sad; the base"),
        ({"run": "unfinished"}, "has not finished; continue it with nnpm train --resume"),
        ({"source": "empty"}, "tiny"),
    ],
)
def test_what_does_not_fit_is_one_line_before_any_work(
    change: dict[str, object],
    said: str,
    arguments,
    finished: Path,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    name = str(change.get("run"))
    if name not in ("None", "nowhere"):
        shutil.copytree(finished, name)
        request = json.loads(Path(name, "run.json").read_text())
        if name == "seed":
            request["seed"] = 5
        if name == "corpora":
            request["corpora"] = ["other"]
        if name == "config":
            request["config"]["train"]["steps"] = 99
        Path(name, "run.json").write_text(json.dumps(request))
        if name == "labels":
            Path(name, "split.json").write_text('{"labels": ["angry", "sad"]}')
        if name == "unfinished":
            Path(name, "network.safetensors").unlink()
    capsys.readouterr()
    assert main(command(arguments | change)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert not (tmp_path / "bundle").exists()


def test_without_torch_it_names_the_extra(
    arguments, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "nnpm.training.adaptation.full", raising=False)
    imported = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(command(arguments)) == 2
    assert "adapt needs torch, which is not installed; install the extra train: pip install" in (
        capsys.readouterr().err
    )


def test_its_three_options_belong_together(arguments, capsys: Captured) -> None:
    given = {name: value for name, value in arguments.items() if name != "source"}
    assert main(command(given)) == 2
    assert "--full, --run RUN and --source DIR must be given together" in capsys.readouterr().err
