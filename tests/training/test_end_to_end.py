"""A tiny corpus, trained, exported, evaluated and served: the whole main path in seconds."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import load_file

from nnpm.service.api.app import create_app
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.errors import BundleError
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.settings import Settings
from nnpm.training.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def train(tiny_corpus: Path, tiny_config: Path, cache: Path):
    """Train into a folder; more options may follow."""

    def run(out: Path, *more: str) -> int:
        return main(
            ["train", "--corpora", "tiny", "--data", str(tiny_corpus), "--out", str(out)]
            + ["--config", str(tiny_config), "--cache", str(cache), "--device", "cpu", *more]
        )

    return run


@pytest.fixture(scope="module")
def bundle(finished: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "default" / "1"
    assert main(["export", str(finished), "--out", str(out), "--cache", str(cache)]) == 0
    return out


def fails(capsys: Captured, *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.strip().splitlines()
    assert len(line) == 1, captured.err
    return line[0]


def test_a_run_leaves_what_it_was_asked_for_its_log_and_its_network(finished: Path) -> None:
    request = json.loads((finished / "run.json").read_text())
    assert request["corpora"] == ["tiny"]
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [0, 1, 2, 3]
    assert "multilabel" not in log[0]
    assert "multilabel" in log[-1]
    assert log[-1]["cross_entropy"] < log[0]["cross_entropy"]
    split = json.loads((finished / "split.json").read_text())
    assert split["clips"] == {"train": 32, "validation": 8, "test": 8}
    assert list((finished / "tensorboard").iterdir())
    assert not list(finished.rglob("*.tmp"))


def test_the_same_seed_gives_the_same_network_and_another_gives_another(
    finished: Path, train, tmp_path: Path
) -> None:
    assert train(tmp_path / "again") == 0
    assert train(tmp_path / "other", "--seed", "1") == 0
    first, again, other = (
        load_file(run / "network.safetensors")
        for run in (finished, tmp_path / "again", tmp_path / "other")
    )
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_a_killed_run_resumes_to_the_same_network(
    finished: Path, tiny_corpus: Path, tiny_config: Path, cache: Path, train, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    command = [sys.executable, "-m", "nnpm.training", "train", "--corpora", "tiny"]
    command += ["--data", str(tiny_corpus), "--config", str(tiny_config), "--out", str(run)]
    command += ["--cache", str(cache), "--device", "cpu", "--threads", str(torch.get_num_threads())]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (run / "log.jsonl").exists() or not (run / "checkpoint.pt").exists():
        assert process.poll() is None, "it finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "network.safetensors").exists()

    assert train(run, "--resume") == 0
    whole, resumed = (load_file(r / "network.safetensors") for r in (finished, run))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    log = [json.loads(line)["epoch"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert log == [0, 1, 2, 3]


def test_a_run_killed_while_the_functionals_are_fitted_resumes_to_the_same_network(
    finished: Path, train, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    shutil.copytree(finished, run)
    (run / "network.safetensors").unlink()
    log = (run / "log.jsonl").read_text()
    assert train(run, "--resume") == 0
    whole, resumed = (load_file(r / "network.safetensors") for r in (finished, run))
    assert whole["head.norm.weight"].shape == (32 + 405,)
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert (run / "log.jsonl").read_text() == log


def test_a_run_folder_is_not_overwritten_and_resumes_only_itself(
    finished: Path, tiny_corpus: Path, tmp_path: Path, cache: Path, capsys: Captured
) -> None:
    same = ["train", "--corpora", "tiny", "--data", tiny_corpus, "--cache", cache, "--out"]
    assert "is not empty; add --resume" in fails(capsys, *same, finished)
    assert "other corpora, data, seed or config" in fails(capsys, *same, finished, "--resume")
    assert "holds no run to resume" in fails(capsys, *same, tmp_path / "new", "--resume")
    assert "has not finished; continue it" in fails(
        capsys, "export", _unfinished(finished, tmp_path), "--out", tmp_path / "b", "--cache", cache
    )


def test_a_run_is_not_exported_when_its_corpora_changed(
    finished: Path, tmp_path: Path, cache: Path, capsys: Captured
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    split = json.loads((run / "split.json").read_text())
    split["digest"] = "another"
    (run / "split.json").write_text(json.dumps(split))
    command = ["export", run, "--out", tmp_path / "bundle", "--cache", cache]
    assert "the corpora are not those" in fails(capsys, *command)
    assert not (tmp_path / "bundle").exists()


def _unfinished(finished: Path, tmp_path: Path) -> Path:
    run = tmp_path / "unfinished"
    run.mkdir()
    (run / "run.json").write_text((finished / "run.json").read_text())
    return run


def test_wrong_corpora_are_one_line(tmp_path: Path, cache: Path, capsys: Captured) -> None:
    common = ["--data", tmp_path, "--out", tmp_path / "run", "--cache", cache]
    assert "nonsense" in fails(capsys, "train", "--corpora", "nonsense", *common)
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(capsys, "train", "--corpora", "empty", *common)
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"not audio")
    (folder / "c.wav").write_bytes(b"nor that")
    rows = "path,emotion,speaker\na.wav,angry,s1\nb.wav,sad,s2\nc.wav,sad,s3\n"
    (folder / "metadata.csv").write_text(rows)
    assert "b.wav" in fails(capsys, "train", "--corpora", "broken", *common)
    assert not (tmp_path / "run").exists()
    (folder / "b.wav").write_bytes(b"nor this")
    line = fails(capsys, "train", "--corpora", "broken", *common)
    assert "3 of 3 clips cannot be decoded" in line


def test_the_bundle_says_what_torch_says(bundle: Path) -> None:
    card = bundles.load(bundle).card
    parity = card.metrics["parity"]
    assert parity["torch"] <= 1e-4
    assert parity["padding"] <= 1e-5
    assert card.labels == ("angry", "happy", "neutral", "sad")
    assert card.training["corpora"][0]["name"] == "tiny"
    sides = card.training["corpora"][0]["speakers"]
    assert [len(sides[name]) for name in ("train", "validation", "test")] == [4, 1, 1]
    assert str(Path.home()) not in (bundle / "bundle.json").read_text()
    text = (bundle / "README.md").read_text()
    for topic in ("Licence of the weights", "Article 5(1)(f)", "women", "| angry |"):
        assert topic in text


def test_a_bundle_is_not_overwritten(
    finished: Path, bundle: Path, cache: Path, capsys: Captured
) -> None:
    line = fails(capsys, "export", finished, "--out", bundle, "--cache", cache)
    assert "not overwritten" in line


def test_evaluate_gives_the_contracts_figures(
    bundle: Path, tiny_corpus: Path, tmp_path: Path, capsys: Captured
) -> None:
    table = tmp_path / "predictions.csv"
    data = tiny_corpus / "tiny"
    capsys.readouterr()
    code = main(
        ["evaluate", "--bundle", str(bundle), "--data", str(data), "--json"]
        + ["--predictions", str(table), "--emotions", "angry", "sad"]
    )
    assert code == 0
    figures = json.loads(capsys.readouterr().out)
    expected = "clips wa uar macro_f1 ece coverage labels confusion per_class per_speaker"
    assert set(expected.split()) <= set(figures)
    assert figures["clips"] == 24
    assert figures["labels"] == ["angry", "sad"]
    assert np.sum(figures["confusion"]) == 24
    assert len(figures["per_speaker"]) == 6
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["prediction"] for row in rows} <= {"angry", "sad"}
    right = np.mean([row["truth"] == row["prediction"] for row in rows])
    assert right == pytest.approx(figures["wa"])
    assert float(rows[0]["angry"]) + float(rows[0]["sad"]) == pytest.approx(1, abs=1e-4)


def test_an_undecodable_clip_counts_as_wrong(
    bundle: Path, tiny_corpus: Path, tmp_path: Path, capsys: Captured
) -> None:
    source = tiny_corpus / "tiny"
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = ["path,emotion"]
    for name in ("anna_angry_0.wav", "anna_angry_1.wav"):
        (folder / name).write_bytes((source / name).read_bytes())
        rows.append(f"{name},angry")
    (folder / "broken.wav").write_bytes(b"RIFF")
    (folder / "metadata.csv").write_text("\n".join([*rows, "broken.wav,angry"]))
    capsys.readouterr()
    command = ["evaluate", "--bundle", str(bundle), "--data", str(folder), "--json"]
    assert main([*command, "--emotions", "angry"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["wa"] == pytest.approx(2 / 3)
    assert figures["undecodable"] == 1
    assert figures["coverage"] <= 2 / 3 + 1e-9


def test_evaluate_refuses_what_it_cannot_score(
    bundle: Path, tiny_corpus: Path, tmp_path: Path, capsys: Captured
) -> None:
    data = tiny_corpus / "tiny"
    command = ["evaluate", "--bundle", bundle, "--data"]
    assert "cannot answer fear" in fails(capsys, *command, data, "--emotions", "angry", "fear")
    assert "metadata.csv" in fails(capsys, *command, tmp_path)
    assert "no bundle.json" in fails(capsys, "evaluate", "--bundle", tmp_path, "--data", data)


def test_the_service_gives_the_recognizers_numbers(bundle: Path, tiny_corpus: Path) -> None:
    clip = tiny_corpus / "tiny" / "emma_sad_0.wav"
    expected = Recognizer(bundles.load(bundle)).answer(decode(clip))
    with TestClient(create_app(Settings(models=bundle.parent.parent))) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.01)
        answer = client.post("/predict?digits=0", files={"file": clip.read_bytes()}).json()
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-6)
    assert answer["model"] == {"name": "default", "version": "1", "language": "und"}
    assert answer["calibrated"] is True


def test_a_foreign_graph_is_refused(bundle: Path, tmp_path: Path) -> None:
    card = bundles.load(bundle).card
    files = {name: (bundle / name).read_bytes() for name in bundles.FILES}
    swapped = files | {"model.onnx": files["head.onnx"]}
    wrong = bundles.save(tmp_path / "wrong", card, swapped)
    with pytest.raises(BundleError, match="lengths"):
        Recognizer(wrong)
