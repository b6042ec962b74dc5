"""Small encoders and a recipe that trains in seconds, and a small base that can be adapted."""

import json
from pathlib import Path

import onnx
import torch
from onnx import parser
from safetensors.torch import save_file

from nnpm.service.inference.bundle import Bundle
from nnpm.training.network.encoders.whisper import Whisper
from tests.support.tiny_bundle import tiny_card, write_tiny_bundle

WHISPER = {
    "model_type": "whisper",
    "num_mel_bins": 20,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "max_source_positions": 1500,
}
"""Sizes as ``config.json`` of transformers names them."""


def tiny_whisper(layers: int = 2) -> Whisper:
    """Random weights, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Whisper(
            {
                "num_mels": WHISPER["num_mel_bins"],
                "width": WHISPER["d_model"],
                "heads": WHISPER["encoder_attention_heads"],
                "inner_width": WHISPER["encoder_ffn_dim"],
                "positions": WHISPER["max_source_positions"],
                "layers": layers,
            }
        )
        # new positions would drown what is said, as trained ones do not
        encoder.embed_positions.weight.data.mul_(0.1)
    return encoder


def write_whisper(folder: Path, **changes: object) -> Path:
    """Write it as transformers does; keyword arguments change ``config.json``."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(WHISPER | changes))
    tensors = {f"model.encoder.{k}": v for k, v in tiny_whisper().state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tiny_recipe(encoder: Path) -> str:
    """A recipe, in TOML, on an encoder of :func:`write_whisper`."""
    return f"""
[encoder]
source = "{encoder}"
layers = 1
[head]
projection = 16
[loss]
memory_start = 0.5
[augment]
shortest_s = 0.5
longest_s = 0.7
[train]
steps = 24
batch_size = 16
head_steps = 8
warmup_steps = 4
head_rate = 0.02
precision = "float32"
[split]
held_out_share = 0.33
"""


FRAMES = """
    <ir_version: 8, opset_import: ["" : 17]>
    frames (float[batch, samples] sound, int64[batch] count) => (float[batch, time, 4] found)
    {
        shape = Constant <value_ints = [0, -1, 4]> ()
        size = Constant <value_ints = [4]> ()
        start = Constant <value_ints = [0]> ()
        axis = Constant <value_ints = [1]> ()
        length = Shape <start = 1> (sound)
        whole = Div (length, size)
        end = Mul (whole, size)
        cut = Slice (sound, start, end, axis)
        rows = Reshape (cut, shape)
        found = Abs (rows)
    }
"""
"""Somebody's encoder: four samples a frame; it does not need to look at the lengths."""

VECTOR = """
    <ir_version: 8, opset_import: ["" : 13]>
    vector (float[batch, samples] sound) => (float[batch, 2] found)
    {
        axis = Constant <value_ints = [1]> ()
        total = ReduceSum <keepdims = 1> (sound, axis)
        size = Abs (total)
        found = Concat <axis = 1> (total, size)
    }
"""
"""Somebody's encoder: a vector per clip."""


def write_graph(path: Path, text: str) -> Path:
    """Write a graph in onnx's own language to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(parser.parse_model(text), path)
    return path


def write_base(path: Path) -> Bundle:
    """A bundle that answers nearly all that it hears, with the card of a trained one."""
    speakers = {"train": ["cleo", "dirk"], "held_out": ["anna", "bert"]}
    corpus = {"name": "tiny", "language": "en", "licence": "none", "speakers": speakers}
    decision = tiny_card().decision.model_copy(update={"low_confidence": 0.3})
    return write_tiny_bundle(path, training={"corpora": [corpus]}, decision=decision)
