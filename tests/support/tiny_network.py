"""A small bundle that can be adapted: a real network, never trained."""

import tomllib
from pathlib import Path

import numpy as np
import torch

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import Bundle, Memory
from nnpm.training.adaptation.features import FeatureViews
from nnpm.training.bundle.files import (
    head_graph,
    memory_file,
    network_graph,
    probe_file,
    voice,
    weights_file,
)
from nnpm.training.config import Config
from nnpm.training.network.network import Network
from tests.support.tiny_bundle import tiny_card

TINY_CONFIG = """
[encoder]
channels = [8, 16]
depths = [1, 1]
pooled_channels = 16
mixstyle_stages = [0]
[head]
projection = 16
[split]
validation_share = 0.17
test_share = 0.17
[loss]
memory_start_epoch = 1
[augment]
variants = 1
shortest_crop = 20
longest_crop = 32
[train]
epochs = 4
steps_per_epoch = 10
learning_rate = 1e-2
batch_size = 16
precision = "float32"
[functionals]
steps = 60
batch_size = 32
views = 1
"""

LABELS = ("angry", "happy", "neutral", "sad")
WIDTH = 32 + 405
"""Of a pooled feature: what the encoder pools, and the functionals."""


def tiny_network() -> Network:
    """Random weights, the same ones every time; the head's statistics are those of its source."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(Config.model_validate(tomllib.loads(TINY_CONFIG)), LABELS).eval()
    # never trained, it hardly tells clips apart; float16, which a memory is stored in, must
    torch.nn.init.constant_(network.encoder.project[1].weight, 30.0)
    source = torch.from_numpy(memory_of(network).features)
    network.head.norm.running_mean = source.mean(0)
    network.head.norm.running_var = source.var(0) + 1e-4
    return network


def memory_of(network: Network) -> Memory:
    """40 voices, ten of each emotion."""
    listen = FeatureViews(network, num_views=0, seed=0)
    clips = [voice(90.0 + 6 * number, 0.5, seed=number) for number in range(40)]
    features = torch.cat([listen(clip)[0:1] for clip in clips]).numpy()
    stored = features.astype(np.float16).astype(np.float32)
    emotion = np.arange(40) % len(LABELS)
    return Memory(stored, emotion, ("one", "two") * 20, ("en", "pl") * 20)


def write_base(path: Path) -> Bundle:
    network = tiny_network()
    files = {
        "model.onnx": network_graph(network),
        "head.onnx": head_graph(network),
        "memory.safetensors": memory_file(memory_of(network)),
        "weights.safetensors": weights_file(network),
        "probe.npz": probe_file(network),
        "README.md": b"# A tiny base\n",
    }
    speakers = {"train": ["cleo", "dirk"], "validation": ["anna"], "test": ["bert"]}
    corpus = {"name": "tiny", "language": "en", "licence": "none", "speakers": speakers}
    training = {"config": network.config.model_dump(mode="json"), "corpora": [corpus]}
    return bundles.save(path, tiny_card(labels=LABELS, training=training), files)
