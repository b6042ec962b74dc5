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
import onnx
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import load_file

from nnpm.service.api.app import create_app
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.graphs import Model
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.settings import Settings
from nnpm.training.bundle.parts import voice
from nnpm.training.cli import main
from nnpm.training.source.run import read, trained_network

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
    assert [row["step"] for row in log] == list(range(24))
    assert "multilabel" not in log[11]
    assert "multilabel" in log[12]
    assert log[-1]["cross_entropy"] < log[0]["cross_entropy"]
    split = json.loads((finished / "split.json").read_text())
    assert split["clips"] == {"train": 32, "held_out": 16}
    encoder = json.loads((finished / "encoder.json").read_text())
    assert (encoder["family"], encoder["sizes"]["layers"]) == ("whisper", 1)
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


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_network(
    finished: Path, tiny_corpus: Path, tiny_config: Path, cache: Path, train, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    command = ["train", "--corpora", "tiny", "--data", str(tiny_corpus), "--out", str(run)]
    command += ["--config", str(tiny_config), "--cache", str(cache), "--device", "cpu"]
    command += ["--threads", str(torch.get_num_threads())]
    child = "import sys; from nnpm.training import cli; from nnpm.training.source import trainer;"
    child += "trainer._CHECKPOINT_STEPS = 1; sys.exit(cli.main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", child, *command], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not (run / "checkpoint.pt").exists():
        assert process.poll() is None, "it finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "network.safetensors").exists()

    assert train(run, "--resume") == 0
    whole, resumed = (load_file(r / "network.safetensors") for r in (finished, run))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    log = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert log == list(range(24))


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


def test_wrong_corpora_are_one_line(
    tiny_config: Path, tmp_path: Path, cache: Path, capsys: Captured
) -> None:
    common = ["--data", tmp_path, "--out", tmp_path / "run", "--cache", cache]
    common += ["--config", tiny_config]
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


def test_wrong_encoders_are_one_line(
    tiny_corpus: Path, tmp_path: Path, cache: Path, capsys: Captured
) -> None:
    common = ["train", "--corpora", "tiny", "--data", tiny_corpus, "--out", tmp_path / "run"]
    common += ["--cache", cache, "--set"]
    assert "choose among whisper" in fails(capsys, *common, "encoder.family=cnn")
    assert "no such folder" in fails(capsys, *common, f"encoder.source={tmp_path / 'none'}")
    assert "config.json cannot be read" in fails(capsys, *common, f"encoder.source={tmp_path}")
    assert "must be section.name=value" in fails(capsys, *common, "encoder")
    assert not (tmp_path / "run").exists()


def test_the_bundle_says_what_torch_says(finished: Path, bundle: Path) -> None:
    """The graph of int8 products, next to the network of the run in float."""
    card = bundles.load(bundle).card
    parity = card.metrics["parity"]
    assert parity["torch"] <= 1e-3
    assert parity["int8"] <= 0.05
    assert card.labels == ("angry", "happy", "neutral", "sad")
    network = trained_network(finished, read(finished), card.labels)
    model = Model(bundles.load(bundle))
    samples = voice(200.0, 1.0, seed=5)
    embedding = model.score(samples).embedding
    with torch.no_grad():
        expected = network(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))[0]
    assert np.abs(embedding - expected.numpy()).max() < 0.1 * float(expected.abs().max())


def test_the_card_says_what_the_bundle_was_made_of(bundle: Path) -> None:
    card = bundles.load(bundle).card
    assert card.training["corpora"][0]["name"] == "tiny"
    sides = card.training["corpora"][0]["speakers"]
    assert [len(sides[name]) for name in ("train", "held_out")] == [4, 2]
    assert not set(sides["train"]) & set(sides["held_out"])
    assert card.training["encoder"] == {"family": "whisper", "source": "encoder"}
    assert card.training["precision"] == "int8"
    figures = card.metrics["held_out_source"]
    assert figures["clips"] == 16
    assert len(figures["per_speaker"]) == 2
    for file in ("bundle.json", "NOTICE", "README.md"):
        text = (bundle / file).read_text()
        assert str(Path.home()) not in text
        assert "/made-once/" not in text  # where the tests keep the encoder
    text = (bundle / "README.md").read_text()
    for topic in ("Licence of the weights", "Article 5(1)(f)", "women", "| angry |"):
        assert topic in text
    memory = bundles.load(bundle).memory()
    assert memory.features.shape == (32, 32)
    assert set(memory.speaker) == set(sides["train"])


def test_a_bundle_may_keep_its_float_weights(
    finished: Path, cache: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "models" / "mine" / "3"
    command = ["export", str(finished), "--out", str(out), "--cache", str(cache)]
    assert main([*command, "--precision", "fp32", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures["parity"]) == {"torch"}
    graph = onnx.load(out / "model.onnx")
    assert "MatMulInteger" not in {node.op_type for node in graph.graph.node}
    told = {prop.key: prop.value for prop in graph.metadata_props}
    assert (told["name"], told["version"]) == ("mine", "3")
    assert bundles.load(out).card.training["precision"] == "fp32"


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
