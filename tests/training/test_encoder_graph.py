"""The encoder part of a bundle's graph: every family, float and int8, next to torch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nnpm.training.bundle import encoder as graphs
from nnpm.training.bundle.answer import encoder_part
from nnpm.training.bundle.encoder import embed, encoder_graph, require_parity
from nnpm.training.config import HeadConfig
from nnpm.training.errors import TrainingError
from nnpm.training.network.encoders import load_pretrained
from nnpm.training.network.network import Network
from tests.support.tiny_network import FRAMES, VECTOR, tiny_whisper, write_graph
from tests.training.test_huggingface import write_model

Clips = list[np.ndarray]


@pytest.fixture(scope="module")
def clips() -> Clips:
    rng = np.random.default_rng(0)
    time = np.arange(20_000) / 16_000
    voice = np.sin(700 * np.pi * time + 3 * np.sin(9 * time))
    return [
        (0.3 * voice[:n] + 0.05 * rng.standard_normal(n)).astype(np.float32)
        for n in (8_000, 20_000, 12_345)
    ]


def network_of(encoder) -> Network:
    """With statistics of a trained head's size, in which parity is told."""
    network = Network(encoder, HeadConfig(projection=8), ("angry", "sad"), 1).eval()
    network.head.deviation.fill_(0.1)
    return network


@pytest.fixture(scope="module")
def whisper() -> Network:
    return network_of(tiny_whisper(1))


@pytest.fixture(scope="module")
def exact(whisper: Network) -> onnx.ModelProto:
    return encoder_graph(whisper, "fp32")


def in_torch(network: Network, clips: Clips) -> np.ndarray:
    with torch.no_grad():
        rows = [network(torch.from_numpy(c)[None], torch.tensor([len(c)])) for c in clips]
    return torch.cat(rows).numpy()


def test_whisper_in_float_is_torch(whisper: Network, exact: onnx.ModelProto, clips: Clips) -> None:
    assert require_parity(exact, whisper, clips) < 1e-3
    assert [value.name for value in exact.graph.input] == ["waveform", "lengths"]
    assert [value.name for value in exact.graph.output] == ["embedding"]
    assert embed(exact, clips).shape == (3, 32)


def test_whisper_in_int8_is_near_and_its_weights_are_small(
    whisper: Network, exact: onnx.ModelProto, clips: Clips
) -> None:
    int8 = encoder_graph(whisper, "int8")
    products = [node.op_type for node in int8.graph.node]
    assert products.count("MatMulInteger") == 6  # four of the attention, two of the layer
    weights = [t for t in int8.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert len(weights) >= 6
    expected, found = embed(exact, clips), embed(int8, clips)
    assert 0 < np.abs(found - expected).max() < 0.2 * np.abs(expected).max()
    assert np.array_equal(embed(graphs._quantised(exact), clips), found)


def test_a_batch_in_float_is_what_its_clips_are_alone(exact: onnx.ModelProto, clips: Clips) -> None:
    session = graphs.open_session(exact.SerializeToString())
    waveform = np.full((3, 20_000), 7.0, np.float32)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    lengths = np.array([len(clip) for clip in clips])
    together = session.run(["embedding"], {"waveform": waveform, "lengths": lengths})[0]
    np.testing.assert_allclose(together, embed(exact, clips), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_models_of_transformers(tmp_path: Path, clips: Clips, kind: str) -> None:
    folder = write_model(tmp_path / "model", kind, feat_extract_norm="group")
    network = network_of(load_pretrained("huggingface", str(folder), 1))
    graph = encoder_graph(network, "fp32")
    require_parity(graph, network, clips)
    session = graphs.open_session(graph.SerializeToString())
    waveform = np.pad(np.stack([clips[0], clips[2][:8_000]]), [(0, 0), (0, 999)])
    lengths = np.array([8_000, 8_000])
    together = session.run(["embedding"], {"waveform": waveform, "lengths": lengths})[0]
    expected = embed(graph, [clips[0], clips[2][:8_000]])
    np.testing.assert_allclose(together, expected, atol=1e-4)
    int8 = graphs._quantised(graph)
    assert "MatMulInteger" in {node.op_type for node in int8.graph.node}
    exact = embed(graph, clips)
    assert 0 < np.abs(embed(int8, clips) - exact).max() < 0.3 * np.abs(exact).max()


@pytest.mark.parametrize("text", [FRAMES, VECTOR], ids=["frames and lengths", "a vector"])
def test_somebodys_graph_is_pooled(tmp_path: Path, clips: Clips, text: str) -> None:
    path = write_graph(tmp_path / "theirs.onnx", text)
    network = network_of(load_pretrained("onnx", str(path), 0))
    graph = encoder_graph(network, "int8")
    np.testing.assert_allclose(embed(graph, clips), in_torch(network, clips), rtol=1e-4, atol=1e-4)
    part = encoder_part(graph)
    assert [value.name for value in part.graph.input] == ["waveform", "lengths"]
    np.testing.assert_array_equal(embed(part, clips), embed(graph, clips))


def test_long_clips_are_cut_as_the_service_cuts_them(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "theirs.onnx", VECTOR)
    graph = encoder_graph(network_of(load_pretrained("onnx", str(path), 0)), "fp32")
    found = embed(graph, [np.ones(160_001, np.float32), np.ones(160_000, np.float32)])
    assert found[0, 0] == found[1, 0] == 160_000


def test_parity_refuses_another_network(
    exact: onnx.ModelProto, whisper: Network, clips: Clips
) -> None:
    other = network_of(tiny_whisper(1))
    other.encoder.layers[0].fc2.bias.data.add_(0.01)
    with pytest.raises(TrainingError, match=r"differ from torch's by .* deviations; at most 0.001"):
        require_parity(exact, other, clips)
    other.encoder.layers[0].fc2.bias.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="differ from torch's by nan"):
        require_parity(exact, other, clips)
