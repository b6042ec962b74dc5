"""A tiny real bundle, built in code: a one-layer network, a head, a memory, a probe."""

import hashlib
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save as save_arrays

from nnpm import __version__
from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import CARD, SEAL, Bundle, Memory
from nnpm.service.inference.card import Card, Decision
from nnpm.service.inference.graphs import softmax
from nnpm.service.inference.head import Head
from nnpm.training.bundle.answer import attach_answer
from nnpm.training.bundle.parts import as_stored, memory_file, probe_file

LABELS = ("angry", "calm", "happy", "sad")
WIDTH, HOP, WINDOW = 8, 160, 400
"""Features of an embedding; the encoder's hop and window, in samples."""
PROJECTED = 6
"""Features that are compared."""
NUM_SLOTS = 40
TEMPERATURE = 1.5

_rng = np.random.default_rng(0)
KERNELS = _rng.standard_normal((WIDTH, 1, WINDOW)).astype(np.float32) / 4
CLASSES = _rng.standard_normal((WIDTH, len(LABELS))).astype(np.float32)


def embed(waveform: np.ndarray) -> np.ndarray:
    """The encoder again, in numpy, for one clip: mean of rectified filter outputs."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    return np.maximum(frames @ KERNELS[:, 0].T, 0).mean(axis=0)


def tiny_head() -> Head:
    """Statistics of sounds like the tests' own; the rest is random."""
    rng = np.random.default_rng(2)
    classes = rng.standard_normal((len(LABELS), PROJECTED)).astype(np.float32)
    return Head(
        mean=np.full(WIDTH, 0.08, np.float32),
        deviation=np.full(WIDTH, 0.03, np.float32),
        weight=rng.standard_normal((PROJECTED, WIDTH)).astype(np.float32),
        bias=rng.standard_normal(PROJECTED).astype(np.float32),
        classes=classes / np.linalg.norm(classes, axis=1, keepdims=True),
        scale=np.float32(4.0),
    )


def tiny_memory() -> Memory:
    """Two corpora of five speakers each; of every emotion a clip or two by each speaker."""
    slot = np.arange(NUM_SLOTS)
    return as_stored(
        Memory(
            np.random.default_rng(1).standard_normal((NUM_SLOTS, WIDTH)).astype(np.float32),
            slot % len(LABELS),
            tuple(("one", "two")[one] for one in slot % 2),
            tuple(("en", "pl")[one] for one in slot % 2),
            tuple(f"speaker {one}" for one in slot // 2 % 5),
        )
    )


def classify(waveform: np.ndarray) -> np.ndarray:
    """Logits of one clip, in numpy."""
    head = tiny_head()
    standard = (embed(waveform) - head.mean) / head.deviation
    projected = head.weight @ standard + head.bias
    return head.scale * head.classes @ (projected / np.linalg.norm(projected))


def expected_probabilities(waveform: np.ndarray) -> np.ndarray:
    """What the classifier says of one window, before the vote."""
    return softmax((classify(waveform) / TEMPERATURE).astype(np.float32))


def _graph(name, nodes, inputs, outputs, constants) -> bytes:
    tensors = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def encoder_graph(*, with_logits: bool = False) -> bytes:
    """waveform, lengths -> embedding; a masked mean, so that padding tells nothing.

    Args:
        with_logits: as the first generation's ``model.onnx`` gives them, too.
    """
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
    weights = {"kernels": KERNELS, "classes": CLASSES}
    constants = weights | {key: np.array(value, np.int64) for key, value in integers.items()}
    floats, ints = TensorProto.FLOAT, TensorProto.INT64
    return _graph(
        "tiny",
        nodes,
        [
            helper.make_tensor_value_info("waveform", floats, ["batch", "samples"]),
            helper.make_tensor_value_info("lengths", ints, ["batch"]),
        ],
        [
            *([helper.make_tensor_value_info("logits", floats, ["batch", 4])] * with_logits),
            helper.make_tensor_value_info("embedding", floats, ["batch", WIDTH]),
        ],
        constants,
    )


def first_head_graph() -> bytes:
    """The first generation's: embedding -> logits, projection (the embedding at unit length)."""
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
        {"classes": CLASSES},
    )


def tiny_card(**changes) -> Card:
    """A card with every field; ``changes`` replace some."""
    decision = Decision(
        temperature=TEMPERATURE,
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


@cache
def _graph_and_probe(decision: str) -> tuple[bytes, bytes]:
    model = attach_answer(
        onnx.load_from_string(encoder_graph()),
        tiny_head(),
        tiny_memory(),
        Decision.model_validate_json(decision),
        LABELS,
        {"licence": "none: made by code", "name": "tiny", "version": "1"},
    )
    return model.SerializeToString(), probe_file(model)


def tiny_files(decision: Decision | None = None) -> dict[str, bytes]:
    """The files of the bundle but for the card."""
    decision = decision or tiny_card().decision
    graph, probe = _graph_and_probe(decision.model_dump_json())
    return {
        "model.onnx": graph,
        "head.safetensors": tiny_head().to_bytes(),
        "memory.safetensors": memory_file(tiny_memory()),
        "probe.npz": probe,
        "README.md": b"# A tiny bundle for tests\n",
        "NOTICE": b"Made by code; nothing of it is from anybody else.\n",
    }


def write_tiny_bundle(path: Path, **changes) -> Bundle:
    """Write the bundle; keyword arguments change its card."""
    card = tiny_card(**changes)
    return bundles.save(path, card, tiny_files(card.decision))


def first_memory() -> tuple[np.ndarray, np.ndarray]:
    """The first generation's memory: features and emotions."""
    features = np.random.default_rng(1).random((NUM_SLOTS, WIDTH)).astype(np.float16)
    return features, np.arange(NUM_SLOTS) % len(LABELS)


def first_files() -> dict[str, bytes]:
    """The files of a bundle of the first generation but for the card."""
    features, emotion = first_memory()
    memory = save_arrays(
        {
            "features": features,
            "emotion": emotion.astype(np.uint8),
            "corpus": (np.arange(NUM_SLOTS) % 2).astype(np.uint16),
            "language": (np.arange(NUM_SLOTS) % 2).astype(np.uint16),
        },
        metadata={"corpora": json.dumps(["one", "two"]), "languages": json.dumps(["en", "pl"])},
    )
    waveform = (np.random.default_rng(3).standard_normal((2, 16_000)) * 0.1).astype(np.float32)
    embedding = np.stack([embed(clip) for clip in waveform])
    probe = io.BytesIO()
    np.savez(
        probe,
        waveform=waveform,
        lengths=np.array([16_000, 16_000], np.float32),
        logits=embedding @ CLASSES,
        embedding=embedding,
    )
    return {
        "model.onnx": encoder_graph(with_logits=True),
        "head.onnx": first_head_graph(),
        "memory.safetensors": memory,
        "weights.safetensors": save_arrays({"kernels": KERNELS, "classes": CLASSES}),
        "probe.npz": probe.getvalue(),
        "README.md": b"# A tiny bundle of the first generation\n",
    }


def write_first_bundle(path: Path, **changes) -> Bundle:
    """Write a bundle of the first generation, as release 638e359 made them."""
    return bundles.save(path, tiny_card(schema_version=1, **changes), first_files())


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
