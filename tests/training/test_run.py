"""Run folders; whole runs are in test_end_to_end.py, and steps in test_trainer.py."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nnpm.training.config import Config, HeadConfig
from nnpm.training.corpora import Utterance
from nnpm.training.data.clips import cached
from nnpm.training.data.splits import split_speakers
from nnpm.training.errors import TrainingError
from nnpm.training.network.network import Network
from nnpm.training.source import run as runs
from nnpm.training.source.run import Request, TrainingData, check_same_data, trained_network
from tests.support.tiny_network import tiny_whisper

LABELS = ("angry", "sad")
SMALL = Config(head=HeadConfig(projection=8))


@pytest.fixture
def utterances() -> list[Utterance]:
    return [
        Utterance(Path(f"/data/{s}/{emotion}.wav"), "one", f"s{s}", "en", emotion)
        for s in range(4)
        for emotion in LABELS
    ]


def training_data(utterances: list[Utterance], tmp_path: Path) -> TrainingData:
    split = split_speakers(utterances, Config().split, 0)
    clips = cached(
        tmp_path / "clips", lambda: [np.full(9, n / 8, np.float32) for n in range(len(utterances))]
    )
    return TrainingData(LABELS, split, {u.path: i for i, u in enumerate(utterances)}, clips)


def test_clips_are_those_of_the_utterances(utterances: list[Utterance], tmp_path: Path) -> None:
    data = training_data(utterances, tmp_path)
    found = data.clips([utterances[5], utterances[2]])
    assert [row[0] for row in found] == [5 / 8, 2 / 8]


def test_a_run_notices_that_its_corpora_changed(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    # a run of an older nnpm has nothing to compare
    check_same_data(tmp_path, training_data(utterances, tmp_path))
    described = runs._describe(training_data(utterances, tmp_path))
    (tmp_path / "split.json").write_text(json.dumps(described))
    assert described["clips"] == {"train": 6, "held_out": 2}
    moved = [replace(u, path=Path("/elsewhere") / u.path.relative_to("/data")) for u in utterances]
    check_same_data(tmp_path, training_data(moved, tmp_path))

    fewer = utterances[2:]
    renamed = [replace(utterances[0], speaker="s9"), *utterances[1:]]
    relabelled = [replace(utterances[0], emotion="sad"), *utterances[1:]]
    for changed in (fewer, renamed, relabelled):
        with pytest.raises(TrainingError, match=r"not those that .* was started with"):
            check_same_data(tmp_path, training_data(changed, tmp_path))


def test_a_network_that_does_not_fit_its_run_is_one_sentence(tmp_path: Path) -> None:
    request = Request(corpora=("mine",), data=tmp_path, seed=0, config=SMALL)
    with pytest.raises(TrainingError, match="has not finished; continue it"):
        trained_network(tmp_path, request, LABELS)
    encoder = tiny_whisper(1)
    network = Network(encoder, SMALL.head, LABELS, 3)  # its manifest names three corpora
    path = tmp_path / "network.safetensors"
    runs.save_file(network.state_dict(), path)
    with pytest.raises(TrainingError, match=r"does not fit run.json, encoder.json"):
        trained_network(tmp_path, request, LABELS)
    described = {"family": "whisper", "sizes": encoder.sizes}
    (tmp_path / "encoder.json").write_text(json.dumps(described))
    found = trained_network(tmp_path, request, LABELS)
    assert not found.training
    assert found.head.mean.shape == (3, 32)
    waveform, lengths = torch.randn(1, 8_000), torch.tensor([8_000])
    with torch.no_grad():
        assert torch.equal(found(waveform, lengths), network.eval()(waveform, lengths))
    with pytest.raises(TrainingError, match="or does not fit"):
        trained_network(tmp_path, request, ("angry", "happy", "sad"))
    for wrong, said in (
        ({"family": "cnn"}, "there is no encoder cnn; choose among whisper"),
        ({"sizes": encoder.sizes | {"layers": 2}}, "or does not fit"),
        ({"sizes": {}}, "or does not fit"),
    ):
        (tmp_path / "encoder.json").write_text(json.dumps(described | wrong))
        with pytest.raises(TrainingError, match=said):
            trained_network(tmp_path, request, LABELS)
    path.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="is damaged"):
        trained_network(tmp_path, request, LABELS)


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runs.choose_device("auto").type == "cpu"
    with pytest.raises(TrainingError, match="finds no cuda device"):
        runs.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runs.choose_device("auto").type == "cuda"
