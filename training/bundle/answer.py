"""The answer part of ``model.onnx``: from the embedding to probabilities, without torch.

``model.onnx`` is an *encoder part*, which ends in the tensor ``embedding`` and is exported once,
and an *answer part*, which is built here from head, memory and decision. Whoever changes one of
the three (export, calibration, adaptation) cuts the old answer part off and attaches a new one.
The encoder part may be anybody's: all it needs is the inputs ``waveform`` and ``lengths``, and a
tensor ``embedding``, float32, shape ``(batch, D)``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
    parser,
)
from onnx.compose import add_prefix

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.bundle import Memory
from ...service.inference.card import Decision
from ...service.inference.graphs import Outputs
from ...service.inference.head import Head
from ..errors import TrainingError
from .prototypes import MAX_DEVIATION, Prototypes, finite_slope

MIN_OPSET = 13
"""ReduceSum takes its axes as an input from here on, as the answer part writes it."""

_PREFIX = "answer/"
_FAR = -10.0  # of the rows that fill an emotion up: below every cosine


def attach_answer(
    encoder: ModelProto,
    head: Head,
    memory: Memory,
    decision: Decision,
    labels: Sequence[str],
    metadata: Mapping[str, str],
) -> ModelProto:
    """Make ``model.onnx`` of an encoder part and what answers.

    Args:
        encoder: a graph that computes ``embedding``; what else it gives is cut off.
        head: of the bundle.
        memory: of the bundle; :meth:`Prototypes.of` condenses it.
        decision: of its card.
        labels: emotions in the order of the logits.
        metadata: for the graph's ``metadata_props``: licence, name, version. Labels and sample rate
            are added.

    Returns:
        Inputs ``waveform`` and ``lengths``; outputs ``probabilities``, ``out_of_domain``,
        ``embedding`` and ``logits``.

    Raises:
        TrainingError: if the encoder gives no embedding of the head's size, or is of an opset
            below :data:`MIN_OPSET`.
    """
    model = encoder_part(encoder)
    _check(model, head, labels)
    if any(_is_ours(name) for node in model.graph.node for name in (*node.input, *node.output)):
        # a stranger's encoder may use our names within
        add_prefix(model, "encoder/", rename_inputs=False, rename_outputs=False, inplace=True)
    constants = _constants(head, Prototypes.of(head, memory), decision, len(labels))
    part = parser.parse_graph(_ANSWER)
    for node in part.node:
        node.name = f"{_PREFIX}{node.output[0]}"
        for names in (node.input, node.output):
            names[:] = [_name(name) for name in names]
    model.graph.node.extend(part.node)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, _name(name)) for name, value in constants.items()
    )
    emotions = len(labels)
    shapes: dict[str, list[str | int]] = {
        "probabilities": ["batch", emotions],
        "out_of_domain": ["batch"],
        "embedding": ["batch", len(head.mean)],
        "logits": ["batch", emotions],
    }
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    own = {"labels": json.dumps(list(labels)), "sample_rate_hz": str(SAMPLE_RATE_HZ)}
    helper.set_model_props(model, {**own, **metadata})
    onnx.checker.check_model(model)
    return model


def encoder_part(model: ModelProto) -> ModelProto:
    """Cut a graph at the tensor ``embedding``.

    Args:
        model: ``model.onnx`` of a bundle, or a graph of somebody else.

    Returns:
        A graph with the same inputs and the one output ``embedding``; nothing is left of what does
        not lead to it, nor of the metadata.

    Raises:
        TrainingError: if there is no such tensor.
    """
    graph = model.graph
    made_by = {value: node for node in graph.node for value in node.output}
    if "embedding" not in made_by:
        raise TrainingError(
            "the encoder's graph computes no tensor 'embedding'; rename its pooled output so"
        )
    needed, waiting = set[str](), ["embedding"]
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            if value in made_by:
                waiting += _read_by(made_by[value])
    part = ModelProto()
    part.CopyFrom(model)
    del part.metadata_props[:]
    del part.graph.output[:]
    known = [value for value in (*graph.output, *graph.value_info) if value.name == "embedding"]
    untold = helper.make_tensor_value_info("embedding", TensorProto.UNDEFINED, None)
    part.graph.output.append(known[0] if known else untold)
    _keep(part.graph.node, lambda node: not needed.isdisjoint(node.output))
    _keep(part.graph.initializer, lambda tensor: tensor.name in needed)
    _keep(part.graph.sparse_initializer, lambda tensor: tensor.values.name in needed)
    _keep(part.graph.value_info, lambda value: value.name in needed & made_by.keys())
    _keep(part.graph.quantization_annotation, lambda note: note.tensor_name in needed)
    return part


def _keep(entries: Any, wanted: Callable[[Any], bool]) -> None:
    """Leave those of a repeated field that are wanted."""
    kept = [entry for entry in entries if wanted(entry)]
    del entries[:]
    entries.extend(kept)


def _read_by(node: NodeProto) -> Iterator[str]:
    """The tensors that a node reads; the branches of an If and the body of a Loop read, too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _read_by(inner)


def _check(encoder: ModelProto, head: Head, labels: Sequence[str]) -> None:
    inputs = {value.name for value in encoder.graph.input}
    inputs -= {tensor.name for tensor in encoder.graph.initializer}
    if inputs != {"waveform", "lengths"}:
        raise TrainingError(
            f"the encoder's graph has the inputs {', '.join(sorted(inputs))}; "
            "it must have lengths, waveform"
        )
    opset = max(
        (one.version for one in encoder.opset_import if one.domain in ("", "ai.onnx")), default=0
    )
    if opset < MIN_OPSET:
        raise TrainingError(
            f"the encoder's graph is of opset {opset}; at least {MIN_OPSET} is needed: convert it "
            "by onnx.version_converter"
        )
    tensor = encoder.graph.output[0].type.tensor_type
    if tensor.elem_type not in (TensorProto.UNDEFINED, TensorProto.FLOAT):
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise TrainingError(f"the encoder's embedding is {kind}; it must be FLOAT")
    width = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 2 else 0
    if width not in (0, len(head.mean)):  # 0: not told
        raise TrainingError(
            f"the encoder's embedding has {width} features; the head has {len(head.mean)}"
        )
    if len(head.classes) != len(labels):
        raise TrainingError(f"the head has {len(head.classes)} classes for {len(labels)} labels")


# Operators as they have been since opset 13, so that any encoder's opset will do.
_ANSWER = """
answer (float[batch, features] embedding) => (float[batch, emotions] probabilities)
{
    centred = Sub (embedding, mean)
    standard = Div (centred, deviation)

    linear = MatMul (standard, weight)
    projected = Add (linear, bias)
    own_squares = Mul (projected, projected)
    square_length = ReduceSum <keepdims = 1> (own_squares, last_axis)
    length = Sqrt (square_length)
    some_length = Max (length, least_length)
    projection = Div (projected, some_length)
    cosines = MatMul (projection, classes)
    logits = Mul (cosines, scale)

    tempered = Div (logits, temperature)
    biased = Add (tempered, logit_bias)
    classifier = Softmax <axis = -1> (biased)

    row_similarities = MatMul (projection, voting)
    similarities = Add (row_similarities, filling)
    by_emotion = Reshape (similarities, emotions_by_rows)
    most_similar, which_similar = TopK <axis = -1, largest = 1> (by_emotion, vote_slots)
    shares = Mul (most_similar, vote_shares)
    mean_similarity = ReduceSum <keepdims = 0> (shares, last_axis)
    biased_vote = Add (mean_similarity, vote_bias)
    tempered_vote = Div (biased_vote, vote_temperature)
    vote = Softmax <axis = -1> (tempered_vote)

    classifier_part = Mul (classifier, classifier_weight)
    vote_part = Mul (vote, vote_weight)
    probabilities = Add (classifier_part, vote_part)

    below = Min (standard, most_deviation)
    clamped = Max (below, least_deviation)
    squares = Mul (clamped, clamped)
    square_sum = ReduceSum <keepdims = 1> (squares, last_axis)
    products = MatMul (clamped, domain)
    pairs = Sub (square_sum, products)
    square_distances = Add (pairs, domain_squares)
    mean_squares = Div (square_distances, num_features)
    positive = Max (mean_squares, zero)
    nearest, which_nearest = TopK <axis = -1, largest = 0> (positive, domain_slots)
    distances = Sqrt (nearest)
    distance_sum = ReduceSum <keepdims = 0> (distances, last_axis)
    distance = Div (distance_sum, num_distances)
    beyond = Add (distance, domain_midpoint)
    steep = Mul (beyond, domain_slope)
    out_of_domain = Sigmoid (steep)
}
"""


def _name(name: str) -> str:
    return name if name in Outputs._fields else f"{_PREFIX}{name}"


def _is_ours(name: str) -> bool:
    return name.startswith(_PREFIX) or name in {*Outputs._fields} - {"embedding"}


def _constants(
    head: Head, prototypes: Prototypes, decision: Decision, num_emotions: int
) -> dict[str, NDArray[np.generic]]:
    """The values of :data:`_ANSWER`, by name."""
    counts = np.bincount(prototypes.emotion, minlength=num_emotions)
    rows = int(counts.max())
    # each emotion's prototypes in as many rows as the largest has
    voting = np.zeros((num_emotions, rows, prototypes.voting.shape[1]), np.float32)
    filling = np.full((num_emotions, rows), _FAR, np.float32)
    voting_slots = min(decision.vote_slots, rows)
    shares = np.zeros((num_emotions, voting_slots), np.float32)
    vote_bias = np.full(num_emotions, -np.inf, np.float32)
    for emotion, count in enumerate(counts):
        if count:
            voting[emotion, :count] = prototypes.voting[prototypes.emotion == emotion]
            filling[emotion, :count] = 0
            shares[emotion, :count] = 1 / min(voting_slots, count)
            shares[emotion, min(voting_slots, count) :] = 0
            vote_bias[emotion] = decision.vote_bias[emotion] if decision.vote_bias else 0
    domain_slots = min(decision.domain_slots, len(prototypes.domain))
    floats = {
        "mean": head.mean,
        "deviation": head.deviation,
        "weight": head.weight.T,
        "bias": head.bias,
        "least_length": 1e-12,
        "classes": head.classes.T,
        "scale": head.scale,
        "temperature": decision.temperature,
        "logit_bias": decision.logit_bias or np.zeros(num_emotions),
        "voting": voting.reshape(num_emotions * rows, -1).T,
        "filling": filling.ravel(),
        "vote_shares": shares,
        "vote_bias": vote_bias,
        "vote_temperature": decision.vote_temperature,
        "classifier_weight": 1 - np.float32(decision.vote_weight),
        "vote_weight": decision.vote_weight,
        "least_deviation": -MAX_DEVIATION,
        "most_deviation": MAX_DEVIATION,
        "domain": 2 * prototypes.domain.T,
        "domain_squares": np.square(prototypes.domain).sum(axis=1),
        "num_features": len(head.mean),
        "zero": 0.0,
        "num_distances": domain_slots,
        "domain_midpoint": decision.domain_midpoint,
        "domain_slope": finite_slope(decision),
    }
    integers = {
        "last_axis": [-1],
        "vote_slots": [voting_slots],
        "domain_slots": [domain_slots],
        "emotions_by_rows": [0, num_emotions, rows],
    }
    constants: dict[str, NDArray[np.generic]] = {
        name: np.ascontiguousarray(np.array(value, np.float32)) for name, value in floats.items()
    }
    return constants | {name: np.array(value, np.int64) for name, value in integers.items()}
