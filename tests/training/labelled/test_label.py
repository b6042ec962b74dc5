"""nnpm label: which clips it picks, how it asks, and the exchange with Label Studio."""

import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnpm.service.inference import bundle as bundles
from nnpm.training.errors import TrainingError
from nnpm.training.labelled.clips import Answerer, Clips
from nnpm.training.labelled.label import LabelFile, Request, Suggestion, ask, label
from nnpm.training.labelled.label_studio import answers, label_config, tasks
from nnpm.training.labelled.pick import pick
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import WIDTH, write_tiny_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("label")
    write_tiny_bundle(root / "base")
    (root / "data/sub").mkdir(parents=True)
    for number in range(12):
        path = root / "data" / ("sub" if number % 2 else ".") / f"c {number}.wav"
        path.write_bytes(encode(speechlike(0.6, seed=number)))
    return root


def test_it_picks_typical_clips_first_then_uncertain_ones_of_many_voices(folder: Path) -> None:
    base = bundles.load(folder / "base")
    rng = np.random.default_rng(0)
    number = 60
    clips = Clips(
        rng.normal(0.08, 0.03, (number, WIDTH)).astype(np.float32), np.arange(number),
        np.ones(number, np.float32), np.full(number, -1),
    )  # fmt: skip
    answerer = Answerer(base)
    found = pick(answerer, clips, base.card.decision, 20)
    assert [one.why for one in found] == ["typical"] * 10 + ["uncertain"] * 10
    assert len({one.clip for one in found}) == 20
    assert found == pick(answerer, clips, base.card.decision, 20)
    said = answerer(clips, base.card.decision)
    two = np.sort(said.probabilities, axis=1)[:, -2:]
    margins = two[:, 1] - two[:, 0]
    assert np.mean([margins[one.clip] for one in found[10:]]) < np.median(margins)
    shares = Counter(one.guess for one in found[:10])
    assert set(shares) == set(said.prediction.tolist())
    assert len(pick(answerer, clips, base.card.decision, 500)) == number


def test_it_writes_rows_to_fill_in_and_leaves_what_is_labelled(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.csv"
    out.write_text("speaker,path,emotion\nann,c 0.wav,sad\n")
    request = Request(folder / "data", folder / "base", out=out, count=5)
    document, text = label(request, interactive=False)
    paths = [one["path"] for one in document["clips"]]
    assert len(paths) == 5
    assert "c 0.wav" not in paths
    assert str(out) in text
    lines = out.read_text().splitlines()
    assert lines[:2] == ["speaker,path,emotion", "ann,c 0.wav,sad"]
    assert lines[2:] == [f",{path}," for path in paths]


def answering(text: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    given: list[tuple[str, str]] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    clips = [Suggestion(f"{name}.wav", "typical", "sad", 0.5) for name in "abcd"]
    ask(Path(), clips, ("angry", "sad", "surprise"), lambda *one: given.append(one), play=False)
    return given


def test_it_asks_by_number_or_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answering("1\nSUR\ns\n9\nx\n\nsad\n", monkeypatch)
    assert found == [("a.wav", "angry"), ("b.wav", "surprise"), ("d.wav", "sad")]
    assert answering("2\nq\n1\n", monkeypatch) == [("a.wav", "sad")]
    assert answering("", monkeypatch) == []


def exported(*answered: tuple[str, str | None]) -> list[dict[str, Any]]:
    """As Label Studio exports JSON."""
    found = []
    for task, (_, choice) in zip(
        tasks([(path, "") for path, _ in answered]), answered, strict=True
    ):
        value = {"from_name": "emotion", "type": "choices", "value": {"choices": [choice]}}
        done = [] if choice is None else [{"id": 1, "was_cancelled": False, "result": [value]}]
        found.append({"id": 7, **task, "annotations": done})
    return found


def test_tasks_go_to_label_studio_and_answers_come_back(folder: Path, tmp_path: Path) -> None:
    export = tmp_path / "tasks.json"
    request = Request(folder / "data", folder / "base", count=3, export=export)
    label(request, interactive=True)
    sent = json.loads(export.read_text())
    assert len(sent) == 3
    assert all("%20" in task["data"]["audio"] for task in sent)
    assert "predictions" not in export.read_text()
    assert '<Choice value="angry"/>' in export.with_suffix(".xml").read_text()
    back, out = tmp_path / "back.json", tmp_path / "labels.csv"
    back.write_text(json.dumps(exported(("c 0.wav", "sad"), ("sub/c 1.wav", None))))
    document, _ = label(Request(folder / "data", None, out=out, answers=back), interactive=True)
    assert document["labels"] == 1
    assert LabelFile(out).labelled() == {"c 0.wav": "sad"}
    minimal = [{"audio": "/data/local-files/?d=sub/c%203.wav", "emotion": "happy"}]
    back.write_text(json.dumps(minimal))
    assert answers(back, folder / "data") == [("sub/c 3.wav", "happy")]
    assert label_config(("sad",)).count("<Choice ") == 1


BAD: dict[str, tuple[object, str]] = {
    "not JSON": ("{", "is not JSON"),
    "no list": ({}, "no list of tasks"),
    "nothing answered": (exported(("c 0.wav", None)), "none of the 1 tasks"),
    "no tasks": ([], "none of the 0 tasks"),
    "odd": ([3, None, {"annotations": 3}, {"annotations": [{"result": [3]}]}], "none of the 4"),
    "another emotion": (exported(("c 0.wav", "bored")), "the answer 'bored'"),
    "missing": (exported(("x.wav", "sad")), "'x.wav', which is not in"),
    "outside": (exported(("../base/model.onnx", "sad")), "which is not in"),
    "absolute": (exported(("/etc/passwd", "sad")), "which is not in"),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_cannot_be_used(folder: Path, tmp_path: Path, case: str) -> None:
    document, wanted = BAD[case]
    path = tmp_path / "back.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    out = tmp_path / "labels.csv"
    with pytest.raises(TrainingError, match=wanted):
        label(Request(folder / "data", None, out=out, answers=path), interactive=False)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda one, _: Request(one / "nowhere", one / "base"), "there is no folder"),
        (lambda one, _: Request(one / "base", one / "base"), "no recording without a label"),
        (lambda one, _: Request(one / "data", None), "--bundle is missing"),
        (lambda one, at: Request(one / "data", one / "base", out=at / "x.csv"), "columns a, b"),
        (lambda one, at: Request(one / "data", one / "base", out=at / "y.csv"), "cannot be read"),
    ],
)
def test_what_cannot_be_labelled(
    folder: Path, tmp_path: Path, change: Callable[[Path, Path], Request], wanted: str
) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "y.csv").write_bytes(b"path,emotion\n\xff,sad\n")
    with pytest.raises(TrainingError, match=wanted):
        label(change(folder, tmp_path), interactive=False)
