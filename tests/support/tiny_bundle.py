"""A tiny real bundle, built in code: the graphs of a one-layer network, a memory, a probe."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save as save_arrays

from nnpm import __version__
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import CARD, SEAL, Bundle
from nnpm.service.inference.card import Card, Decision
from nnpm.service.inference.graphs import softmax

LABELS = ("angry", "calm", "happy", "sad")
WIDTH, HOP, WINDOW = 8, 160, 400
NUM_SLOTS = 40


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kernels = rng.standard_normal((WIDTH, 1, WINDOW)).astype(np.float32) / 4
    classes = rng.standard_normal((WIDTH, len(LABELS))).astype(np.float32)
    return {"kernels": kernels, "classes": classes}


def embed(waveform: np.ndarray) -> np.ndarray:
    """The network again, in numpy, for one clip: mean of rectified filter outputs."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    return np.maximum(frames @ weights()["kernels"][:, 0].T, 0).mean(axis=0)


def _graph(name, nodes, inputs, outputs, constants) -> bytes:
    tensors = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def model_graph() -> bytes:
    """waveform, lengths -> logits, embedding; a masked mean, so that padding tells nothing."""
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["waveform", "axis1"], ["channel"]),
        node("Conv", ["channel", "kernels"], ["filtered"], strides=[HOP]),
        node("Relu", ["filtered"], ["rectified"]),
        node("Sub", ["lengths", "window"], ["room"]),
        node("Div", ["room", "hop"], ["hops"]),
        node("Add", ["hops", "one"], ["frames"]),
        node("Shape", ["rectified"], ["shape"]),
        node("Gather", ["shape", "two"], ["total"]),
        node("Range", ["zero", "total", "one"], ["index"]),
        node("Unsqueeze", ["index", "axes01"], ["index3"]),
        node("Unsqueeze", ["frames", "axes12"], ["frames3"]),
        node("Less", ["index3", "frames3"], ["inside"]),
        node("Cast", ["inside"], ["mask"], to=TensorProto.FLOAT),
        node("Mul", ["rectified", "mask"], ["masked"]),
        node("ReduceSum", ["masked", "axis2"], ["sum"], keepdims=0),
        node("Unsqueeze", ["frames", "axis1"], ["frames2"]),
        node("Cast", ["frames2"], ["count"], to=TensorProto.FLOAT),
        node("Div", ["sum", "count"], ["embedding"]),
        node("MatMul", ["embedding", "classes"], ["logits"]),
    ]
    integers = {
        "axis1": [1], "axis2": [2], "axes01": [0, 1], "axes12": [1, 2],
        "window": WINDOW, "hop": HOP, "one": 1, "two": 2, "zero": 0,
    }  # fmt: skip
    constants = weights() | {key: np.array(value, np.int64) for key, value in integers.items()}
    floats, ints = TensorProto.FLOAT, TensorProto.INT64
    return _graph(
        "tiny",
        nodes,
        [
            helper.make_tensor_value_info("waveform", floats, ["batch", "samples"]),
            helper.make_tensor_value_info("lengths", ints, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("logits", floats, ["batch", len(LABELS)]),
            helper.make_tensor_value_info("embedding", floats, ["batch", WIDTH]),
        ],
        constants,
    )


def head_graph() -> bytes:
    """embedding -> logits, projection (the embedding at unit length)."""
    nodes = [
        helper.make_node("MatMul", ["embedding", "classes"], ["logits"]),
        helper.make_node("LpNormalization", ["embedding"], ["projection"], axis=1, p=2),
    ]
    floats = TensorProto.FLOAT
    return _graph(
        "head",
        nodes,
        [helper.make_tensor_value_info("embedding", floats, ["n", WIDTH])],
        [
            helper.make_tensor_value_info("logits", floats, ["n", len(LABELS)]),
            helper.make_tensor_value_info("projection", floats, ["n", WIDTH]),
        ],
        {"classes": weights()["classes"]},
    )


def tiny_card(**changes) -> Card:
    """A card with every field; ``changes`` replace some."""
    decision = Decision(
        temperature=1.5,
        vote_weight=0.3,
        vote_temperature=0.2,
        vote_slots=5,
        low_confidence=0.0,
        out_of_domain=1.0,
        domain_slots=5,
        domain_midpoint=-2.0,
        domain_slope=5.0,
    )
    fields = {
        "created_at": "2026-01-01T00:00:00+00:00",
        "nnpm_version": __version__,
        "labels": LABELS,
        "window_s": 3.0,
        "hop_s": 1.5,
        "decision": decision,
        "calibrated": True,
        "source_languages": ("en", "pl"),
        "licence": "none: made by code",
        "training": {},
        "metrics": {"held_out_source": {"wa": 0.5}},
    }
    return Card(**(fields | changes))


def tiny_files() -> dict[str, bytes]:
    """The files of the bundle but for the card."""
    rng = np.random.default_rng(1)
    features = rng.random((NUM_SLOTS, WIDTH)).astype(np.float16)
    memory = save_arrays(
        {
            "features": features,
            "emotion": (np.arange(NUM_SLOTS) % len(LABELS)).astype(np.uint8),
            "corpus": (np.arange(NUM_SLOTS) % 2).astype(np.uint16),
            "language": (np.arange(NUM_SLOTS) % 2).astype(np.uint16),
        },
        metadata={"corpora": json.dumps(["one", "two"]), "languages": json.dumps(["en", "pl"])},
    )
    waveform = (rng.standard_normal((2, 16_000)) * 0.1).astype(np.float32)
    embedding = np.stack([embed(clip) for clip in waveform])
    probe = io.BytesIO()
    np.savez(
        probe,
        waveform=waveform,
        lengths=np.array([16_000, 16_000], np.float32),
        logits=embedding @ weights()["classes"],
        embedding=embedding,
    )
    return {
        "model.onnx": model_graph(),
        "head.onnx": head_graph(),
        "memory.safetensors": memory,
        "weights.safetensors": save_arrays(weights()),
        "probe.npz": probe.getvalue(),
        "README.md": b"# A tiny bundle for tests\n",
    }


def write_tiny_bundle(path: Path, **changes) -> Bundle:
    """Write the bundle; keyword arguments change its card."""
    return bundles.save(path, tiny_card(**changes), tiny_files())


def write_signed(path: Path, name: str, data: bytes) -> None:
    """Replace a file of a bundle and let the card vouch for it: foreign rather than damaged."""
    (path / name).write_bytes(data)
    card = json.loads((path / CARD).read_text())
    card["files"][name] = hashlib.sha256(data).hexdigest()
    write_card(path, card)


def write_card(path: Path, card: dict) -> None:
    """Replace the card of a bundle, and its seal."""
    text = json.dumps(card).encode()
    (path / CARD).write_bytes(text)
    (path / SEAL).write_bytes(bundles.seal(text))


def expected_probabilities(waveform: np.ndarray) -> np.ndarray:
    """What the classifier says of one window, before the vote."""
    return softmax((embed(waveform) @ weights()["classes"] / 1.5).astype(np.float32))
