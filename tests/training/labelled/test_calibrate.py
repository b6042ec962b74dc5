"""Calibration: the answers are those of the service, and the fit makes confidence true."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import SEAL
from nnpm.service.inference.errors import ParameterError
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.jobs.folder import EvaluationTask
from nnpm.training.corpora import load_folder
from nnpm.training.errors import TrainingError
from nnpm.training.evaluation import judge, report
from nnpm.training.labelled.calibrate import evaluate
from nnpm.training.labelled.clips import Answerer, Clips, read_clips
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS, write_first_bundle, write_tiny_bundle

NUM_CLIPS = 40


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty clips and one that is damaged; every second label is what the bundle answers."""
    folder = tmp_path_factory.mktemp("labelled")
    base = write_tiny_bundle(folder / "base")
    data = folder / "data"
    data.mkdir()
    for number in range(NUM_CLIPS):
        (data / f"{number}.wav").write_bytes(encode(speechlike(0.6, seed=number)))
    (data / "broken.wav").write_bytes(b"RIFF, but no more")
    names = [f"{number}.wav" for number in range(NUM_CLIPS)]
    clips = read_clips(base, [data / name for name in names])
    said = Answerer(base)(clips, base.card.decision).prediction
    emotions = [
        LABELS[said[number] if number % 2 else number // 2 % len(LABELS)]
        for number in range(NUM_CLIPS)
    ]
    rows = [*zip(names, emotions, strict=True), ("broken.wav", "sad")]
    lines = ["path,emotion", *(f"{name},{emotion}" for name, emotion in rows)]
    (data / "metadata.csv").write_text("\n".join(lines))
    return folder


def test_figures_are_those_of_the_service_and_the_bundle_is_new(
    labelled: Path, tmp_path: Path
) -> None:
    data, base = labelled / "data", bundles.load(labelled / "base")
    task = EvaluationTask(bundle=base.path, target=data, out=tmp_path / "new", threads=1)
    found = evaluate(task)
    served = report(judge(Recognizer(base), load_folder(data)), LABELS)
    for name in ("wa", "uar", "ece"):
        assert found[name]["value"] == pytest.approx(served[name], abs=1e-6)
    assert found["answered_share"]["value"] == pytest.approx(served["coverage"])
    assert (found["undecodable"], found["clips"]["accepted"]) == (1, NUM_CLIPS + 1)
    assert found["clips"]["examples"] == {"undecodable": ["broken.wav"]}
    new = bundles.load(tmp_path / "new")
    Recognizer(new)  # its graph gives what its probe says
    assert new.card.calibrated
    assert new.card.parent == (base.path / SEAL).read_text()[:64]
    assert "## Calibration" in (new.path / "README.md").read_text("utf-8")
    after = report(judge(Recognizer(new), load_folder(data)), LABELS)
    assert after["ece"] < served["ece"]
    assert after["coverage"] >= served["coverage"]
    for name in ("head.safetensors", "memory.safetensors", "NOTICE"):
        assert (new.path / name).read_bytes() == (base.path / name).read_bytes()
    assert "broken" not in json.dumps(new.card.model_dump(mode="json"))


def test_some_clips_are_the_same_clips() -> None:
    rng = np.random.default_rng(0)
    clips = Clips(
        rng.random((5, 3), np.float32), np.array([0, 0, 1, 2, 2]),
        np.ones(5, np.float32), np.array([3, 1, 2]),
    )  # fmt: skip
    some = clips.of(np.array([2, 0]))
    assert some.truth.tolist() == [2, 3]
    assert some.clip.tolist() == [1, 1, 0, 0]
    assert some.embedding.tolist() == clips.embedding[[0, 1, 3, 4]].tolist()


def test_what_cannot_be_calibrated(labelled: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    base = labelled / "base"

    def tried(bundle: Path = base) -> None:
        evaluate(EvaluationTask(bundle=bundle, target=data, out=tmp_path / "new", threads=1))

    with pytest.raises(ParameterError, match=r"metadata\.csv cannot be read"):
        tried()
    (data / "1.wav").write_bytes(b"RIFF")
    (data / "metadata.csv").write_text("path,emotion\n1.wav,fear\n")
    with pytest.raises(TrainingError, match="cannot answer fear"):
        tried()
    (data / "metadata.csv").write_text("path,emotion\n1.wav,sad\n")
    with pytest.raises(TrainingError, match="none of the 1 clips can be decoded"):
        tried()
    first = write_first_bundle(tmp_path / "first").path
    with pytest.raises(TrainingError, match="of the first generation"):
        tried(first)
    assert not (tmp_path / "new").exists()
