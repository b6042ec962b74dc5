"""The encoder part of a bundle's graph: exported from torch once, quantised, and run on clips."""

import logging
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.export import Dim
from tqdm import tqdm

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.system import available_cores
from ..errors import TrainingError
from ..network.encoders.onnx_file import OnnxFile
from ..network.network import Network

OPSET = 20
Floats = NDArray[np.float32]
Precision = Literal["fp32", "int8"]

PARITY_TOLERANCE = 1e-3
"""Largest difference of an embedding between ONNX Runtime and torch in float32, in deviations."""

LONGEST_S = 10.0
"""Longer clips are cut to this, as the service cuts what it scores."""


def encoder_graph(network: Network, precision: Precision) -> onnx.ModelProto:
    """Export waveform ``(batch, samples)`` and lengths ``(batch,)`` to embedding ``(batch, D)``.

    Int8 means dynamic quantisation of the matrix products, per channel; convolutions, norms,
    softmax and pooling stay float32.

    References:
        The loss of int8 is decided by outliers of the activations; Whisper's middle layers have
        few, after norms (docs/research/method.md has the measured difference).

    Args:
        network: in evaluation mode.
        precision: of the matrix products.
    """
    if isinstance(network.encoder, OnnxFile):
        return _pooled(onnx.load_from_string(network.encoder.graph), network.encoder)
    graph = _export(network)
    return _quantised(graph) if precision == "int8" else graph


def _export(network: Network) -> onnx.ModelProto:
    # min keeps the exporter from asking about empty axes; the graph itself has no such bound
    batch, samples = Dim("batch"), Dim("samples", min=8_000, max=480_000)
    with warnings.catch_warnings():
        # the exporter warns of its own use of deprecated functions, and of torchvision's absence
        warnings.simplefilter("ignore")
        for talkative in ("torch.onnx", "onnxscript"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(),
            (torch.randn(2, 24_000), torch.tensor([24_000, 16_000])),
            input_names=["waveform", "lengths"],
            output_names=["embedding"],
            dynamic_shapes={"waveform": {0: batch, 1: samples}, "lengths": {0: batch}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph


def _quantised(graph: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, before)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises pre-processing that this graph does not need
        try:
            quantize_dynamic(
                before,
                after,
                per_channel=True,
                op_types_to_quantize=["MatMul"],
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
        return onnx.load(after)


def _pooled(graph: onnx.ModelProto, encoder: OnnxFile) -> onnx.ModelProto:
    """Somebody's graph with its frames pooled; a vector per clip has a deviation of 0."""
    frames = graph.graph.output[0].name
    opset = max(o.version for o in graph.opset_import if o.domain in ("", "ai.onnx"))
    pooling = onnx.parser.parse_model(
        f"""
        <ir_version: {graph.ir_version}, opset_import: ["" : {opset}]>
        pooling (float[batch, frames_or_width, width] frames)
            => (float[batch, twice] embedding) {{
            shape = Constant <value_ints = [0, -1, {encoder.width}]> ()
            sequence = Reshape (frames, shape)
            axis = Constant <value_ints = [1]> ()
            mean = ReduceMean <keepdims = 1> (sequence, axis)
            centred = Sub (sequence, mean)
            square = Mul (centred, centred)
            variance = ReduceMean <keepdims = 0> (square, axis)
            least = Constant <value_float = 1e-8> ()
            bounded = Max (variance, least)
            deviation = Sqrt (bounded)
            flat = Squeeze (mean, axis)
            embedding = Concat <axis = 1> (flat, deviation)
        }}
        """
    )
    if opset < 18:
        raise TrainingError(f"the encoder's ONNX opset is {opset}; at least 18 is required")
    joined: onnx.ModelProto = onnx.compose.merge_models(
        graph, pooling, io_map=[(frames, "frames")], prefix1="encoder.", prefix2="pooling."
    )
    names = {"encoder." + graph.graph.input[0].name: "waveform", "pooling.embedding": "embedding"}
    if len(graph.graph.input) > 1:
        names["encoder." + graph.graph.input[1].name] = "lengths"
    else:
        lengths = onnx.helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["batch"])
        joined.graph.input.append(lengths)
    for values in (joined.graph.input, joined.graph.output):
        for value in values:
            value.name = names.get(value.name, value.name)
    for node in joined.graph.node:
        for ends in (node.input, node.output):
            for place, name in enumerate(ends):
                ends[place] = names.get(name, name)
    return joined


def embed(graph: onnx.ModelProto, clips: Sequence[Floats], *, what: str = "embed") -> Floats:
    """Run the encoder part on clips, one by one, on all cores.

    Args:
        graph: of :func:`encoder_graph`.
        clips: samples at 16 kHz, shape ``(num_samples,)`` each.
        what: name of the progress bar.

    Returns:
        h, float32, shape ``(clips, D)``; the same whatever other clips there are.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    longest = round(LONGEST_S * SAMPLE_RATE_HZ)

    def one(samples: Floats) -> Floats:
        samples = samples[:longest]
        given = {"waveform": samples[None], "lengths": np.array([len(samples)], np.int64)}
        names = [argument.name for argument in session.get_inputs()]
        found: Floats = session.run(["embedding"], {name: given[name] for name in names})[0]
        return found[0]

    with ThreadPoolExecutor(available_cores()) as pool:
        bar = tqdm(pool.map(one, clips), desc=what, total=len(clips), unit="clip", disable=None)
        return np.stack(list(bar))


def require_parity(graph: onnx.ModelProto, network: Network, clips: Sequence[Floats]) -> float:
    """Compare the graph in ONNX Runtime with torch, in float32.

    Args:
        graph: of :func:`encoder_graph` with ``fp32``.
        network: the same in torch.
        clips: some clips of different length.

    Returns:
        The largest difference of an embedding, in the head's deviations.

    Raises:
        TrainingError: if it is larger than :data:`PARITY_TOLERANCE`.
    """
    found = embed(graph, clips, what="parity")
    deviation = network.head.export().deviation
    worst = 0.0
    for row, samples in zip(found, clips, strict=True):
        cut = samples[: round(LONGEST_S * SAMPLE_RATE_HZ)]
        with torch.no_grad():
            expected = network(torch.from_numpy(cut)[None], torch.tensor([len(cut)]))[0].numpy()
        worst = max(worst, float(np.abs((row - expected) / deviation).max()))
    if not worst <= PARITY_TOLERANCE:  # this refuses NaN too
        raise TrainingError(
            f"the graph's embeddings differ from torch's by {worst:.2g} deviations; at most "
            f"{PARITY_TOLERANCE:g} is allowed"
        )
    return worst
