"""The parts of an export; a whole one is in test_end_to_end.py."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from nnpm.service.inference.bundle import Memory
from nnpm.training.bundle.calibration import build_memory
from nnpm.training.bundle.export import _command
from nnpm.training.bundle.files import golden_clips, measure_parity, memory_file, probe_file
from nnpm.training.config import DEFAULT, Config, EncoderConfig, TrainConfig, load
from nnpm.training.corpora import Utterance
from nnpm.training.data.clips import cached
from nnpm.training.network.network import Network
from nnpm.training.source.run import Request

LABELS = ("angry", "sad")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    encoder = EncoderConfig(channels=(8,), depths=(0,), pooled_channels=8, mixstyle_stages=())
    return Network(Config(encoder=encoder), LABELS).eval()


def test_calibration_sees_the_memory_that_the_bundle_stores(
    network: Network, tmp_path: Path, rng: np.random.Generator
) -> None:
    clips = cached(
        tmp_path / "clips", lambda: [rng.standard_normal(n) for n in (4_000, 2_000, 6_000)]
    )
    utterances = [
        Utterance(Path("/1.wav"), "one", "a", "en", "sad"),
        Utterance(Path("/2.wav"), "two", "b", "pl", "angry"),
        Utterance(Path("/3.wav"), "one", "a", "en", "angry"),
    ]
    memory = build_memory(network, utterances, clips)
    assert memory.emotion.tolist() == [1, 0, 0]
    path = tmp_path / "memory.safetensors"
    path.write_bytes(memory_file(memory))
    with safe_open(path, framework="np") as file:
        names = {key: json.loads(value) for key, value in file.metadata().items()}
        stored = file.get_tensor("features")
        assert stored.dtype == np.float16
        assert np.array_equal(stored.astype(np.float32), memory.features)
        assert [names["corpora"][i] for i in file.get_tensor("corpus")] == ["one", "two", "one"]
        assert [names["languages"][i] for i in file.get_tensor("language")] == ["en", "pl", "en"]
        assert file.get_tensor("emotion").tolist() == [1, 0, 0]
    for row, clip in zip(memory.features, clips, strict=True):
        with torch.no_grad():
            _, pooled = network(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))
        np.testing.assert_allclose(row, pooled[0].numpy(), atol=2e-3, rtol=2e-3)


def test_the_probe_holds_the_golden_clips_and_torchs_answers(network: Network) -> None:
    with np.load(io.BytesIO(probe_file(network))) as probe:
        waveform, lengths = golden_clips()
        assert np.array_equal(probe["waveform"], waveform)
        assert np.array_equal(probe["lengths"], lengths)
        with torch.no_grad():
            logits, _ = network(torch.from_numpy(waveform), torch.from_numpy(lengths))
        np.testing.assert_array_equal(probe["logits"], logits.numpy())


class Graph:
    """Answers as the network does, but for an error that comes with padding."""

    def __init__(self, network: Network, padding_error: float, error: float) -> None:
        self.network, self.padding_error, self.error = network, padding_error, error
        self.longest = 0

    @torch.no_grad()
    def run(self, waveform: np.ndarray, lengths: np.ndarray):
        self.longest = max(self.longest, waveform.shape[1])
        logits, pooled = self.network(torch.from_numpy(waveform), torch.from_numpy(lengths))
        padded = torch.from_numpy(lengths < waveform.shape[1]).float()[:, None]
        wrong = self.error + self.padding_error * padded
        return (logits + wrong * torch.tensor([1.0, -1.0])).numpy(), pooled.numpy()


def test_parity_finds_either_kind_of_difference(network: Network, rng: np.random.Generator) -> None:
    clips = [rng.standard_normal(n).astype(np.float32) for n in (100, 2_000, 200_000, 3_000)]
    right = Graph(network, 0.0, 0.0)
    parity = measure_parity(right, network, clips)  # type: ignore[arg-type]
    assert parity["torch"] <= 1e-6
    assert parity["padding"] <= 1e-5
    assert right.longest == 96_000  # a window: longer clips are cut, and too short ones left out
    padding = measure_parity(Graph(network, 0.01, 0.0), network, clips)  # type: ignore[arg-type]
    assert padding["torch"] <= 1e-6
    assert 1e-3 < padding["padding"] < 1e-2
    both = measure_parity(Graph(network, 0.0, 0.01), network, clips)  # type: ignore[arg-type]
    assert 1e-3 < both["torch"] < 1e-2
    assert both["padding"] <= 1e-5


def test_the_card_tells_the_exact_command() -> None:
    request = Request(corpora=("one", "my own"), data=Path("/x"), seed=3, config=load(DEFAULT))
    assert _command(request) == (
        "nnpm train --corpora one 'my own' --data DIR --seed 3 --out RUN && "
        "nnpm export RUN --out BUNDLE"
    )
    other = request.model_copy(update={"config": Config(train=TrainConfig(epochs=1))})
    assert " --config CONFIG " in _command(other)


def test_a_memory_of_one_corpus(tmp_path: Path) -> None:
    memory = Memory(np.ones((2, 3), np.float32), np.array([0, 1]), ("a", "a"), ("en", "en"))
    path = tmp_path / "memory.safetensors"
    path.write_bytes(memory_file(memory))
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"corpora": '["a"]', "languages": '["en"]'}
