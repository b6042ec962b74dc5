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
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.export import Dim
from tqdm import tqdm

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.graphs import open_session
from ...service.system import available_cores
from ..errors import TrainingError
from ..network.encoders.onnx_file import OnnxFile
from ..network.network import LEAST_VARIANCE, Network

OPSET = 20
Floats = NDArray[np.float32]
Precision = Literal["fp32", "int8"]

PARITY_TOLERANCE = 1e-3
"""Largest difference of an embedding between ONNX Runtime and torch in float32, in deviations."""

_OUTPUT = "pooled over time"  # while it is exported: no tensor of a model is called so
_LONGEST = 10 * SAMPLE_RATE_HZ  # longer clips are cut, as the service cuts what it scores


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
            output_names=[_OUTPUT],
            dynamic_shapes={"waveform": {0: batch, 1: samples}, "lengths": {0: batch}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    if any("embedding" in node.output for node in graph.graph.node):  # WavLM has one within
        graph = onnx.compose.add_prefix(graph, "model/", rename_inputs=False, rename_outputs=False)
    graph.graph.output[0].name = "embedding"
    for node in graph.graph.node:
        node.output[:] = ["embedding" if name == _OUTPUT else name for name in node.output]
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
    """Somebody's graph with our names of inputs, and with its frames pooled.

    A vector per clip counts as one frame, whose deviation is 0.
    """
    opset = max(o.version for o in graph.opset_import if o.domain in ("", "ai.onnx"))
    header = f'<ir_version: {graph.ir_version}, opset_import: ["" : {opset}]>'
    entry = onnx.parser.parse_model(
        f"""{header}
        entry (float[batch, samples] waveform, int64[batch] lengths)
            => (float[batch, samples] given_waveform, int64[batch] given_lengths) {{
            given_waveform = Identity (waveform)
            given_lengths = Identity (lengths)
        }}"""
    )
    # as of opset 13: ReduceMean takes its axes as an input from 18 on
    pooling = onnx.parser.parse_model(
        f"""{header}
        pooling (float[batch, frames_or_width, width] frames) => (float[batch, twice] embedding) {{
            shape = Constant <value_ints = [0, -1, {encoder.width}]> ()
            sequence = Reshape (frames, shape)
            sizes = Shape (sequence)
            place = Constant <value_int = 1> ()
            num_frames = Gather (sizes, place)
            count = Cast <to = 1> (num_frames)
            axis = Constant <value_ints = [1]> ()
            total = ReduceSum <keepdims = 1> (sequence, axis)
            mean = Div (total, count)
            centred = Sub (sequence, mean)
            square = Mul (centred, centred)
            total_square = ReduceSum <keepdims = 0> (square, axis)
            variance = Div (total_square, count)
            least = Constant <value_float = {LEAST_VARIANCE:.1e}> ()
            bounded = Max (variance, least)
            deviation = Sqrt (bounded)
            flat = Squeeze (mean, axis)
            embedding = Concat <axis = 1> (flat, deviation)
        }}"""
    )
    given = {"given_waveform": encoder.waveform, "given_lengths": encoder.lengths}
    theirs = onnx.compose.add_prefix(graph, "encoder/")
    joined = onnx.compose.merge_models(
        entry, theirs, io_map=[(ours, f"encoder/{name}") for ours, name in given.items() if name]
    )
    frames = theirs.graph.output[0].name
    pooled: onnx.ModelProto = onnx.compose.merge_models(
        joined, pooling, io_map=[(frames, "frames")]
    )
    return pooled


def embed(graph: onnx.ModelProto, clips: Sequence[Floats], *, what: str = "embed") -> Floats:
    """Run the encoder part on clips, one by one, on all cores.

    Args:
        graph: of :func:`encoder_graph`.
        clips: samples at 16 kHz, shape ``(num_samples,)`` each.
        what: name of the progress bar.

    Returns:
        h, float32, shape ``(clips, D)``; the same whatever other clips there are.
    """
    session = open_session(graph.SerializeToString())

    def one(samples: Floats) -> Floats:
        cut = samples[:_LONGEST]
        given = {"waveform": cut[None], "lengths": np.array([len(cut)], np.int64)}
        row: Floats = session.run(["embedding"], given)[0][0]
        return row

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
    differences = []
    for row, samples in zip(found, clips, strict=True):
        cut = samples[:_LONGEST]
        with torch.no_grad():
            expected = network(torch.from_numpy(cut)[None], torch.tensor([len(cut)]))[0].numpy()
        differences.append(np.abs((row - expected) / deviation).max())
    worst = float(np.max(differences))  # NaN if one is, unlike max()
    if not worst <= PARITY_TOLERANCE:
        raise TrainingError(
            f"the graph's embeddings differ from torch's by {worst:.2g} deviations; at most "
            f"{PARITY_TOLERANCE:g} is allowed"
        )
    return worst
