"""The ONNX graphs of a network, and the check that ONNX Runtime and torch give the same answers."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.graphs import Model, softmax
from ..data.batches import pad
from ..errors import TrainingError
from ..network.network import Network

OPSET = 20

PARITY_TOLERANCE = 1e-4
"""Largest difference in probability between ONNX Runtime and torch."""

PADDING_TOLERANCE = 1e-5
"""Largest difference in probability between a clip alone and in a padded batch."""

LONGEST_S = 6.0
"""Longer clips are cut to this: a batch of many whole recordings would need too much memory."""

_CLIPS = 100


class _HeadGraph(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.head = network.head

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        logits, projection = self.head(embedding)
        return logits, projection


def network_graph(network: Network) -> bytes:
    """Export ``model.onnx``.

    Inputs: waveform, float32 ``(batch, samples)``; lengths, int64 ``(batch,)``. Outputs: logits
    ``(batch, emotions)``; embedding ``(batch, D)``.
    """
    # min keeps the exporter from asking about empty axes; the graph itself has no such bound
    batch, samples = Dim("batch"), Dim("samples", min=8_000)
    waveform = torch.randn(2, 24_000)
    lengths = torch.tensor([24_000, 16_000])
    return _export(
        network,
        (waveform, lengths),
        {"waveform": {0: batch, 1: samples}, "lengths": {0: batch}},
        ["logits", "embedding"],
    )


def head_graph(network: Network) -> bytes:
    """Export ``head.onnx``: embedding ``(n, D)`` to logits and unit projection ``(n, width)``."""
    embedding = torch.randn(2, network.head.projection.in_features)
    return _export(
        _HeadGraph(network),
        (embedding,),
        {"embedding": {0: Dim.DYNAMIC}},
        ["logits", "projection"],
    )


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    dynamic_shapes: Mapping[str, Any],
    outputs: Sequence[str],
) -> bytes:
    """Export in evaluation mode, with the dynamic axes that are named."""
    with warnings.catch_warnings():
        # the exporter warns of its own use of deprecated functions, and of torchvision's absence
        warnings.simplefilter("ignore")
        for talkative in ("torch.onnx", "onnxscript"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=list(dynamic_shapes),
            output_names=list(outputs),
            dynamic_shapes=dict(dynamic_shapes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def require_parity(
    model: Model, network: Network, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Measure the differences as :func:`measure_parity`, and refuse large ones.

    Args:
        model: the bundle's graphs in ONNX Runtime.
        network: the same network in torch.
        clips: samples at 16 kHz, shape ``(num_samples,)`` each; some are taken if there are many.

    Returns:
        The differences by name.

    Raises:
        TrainingError: if one is larger than its tolerance.
    """
    parity = measure_parity(model, network, clips)
    for name, allowed in (("torch", PARITY_TOLERANCE), ("padding", PADDING_TOLERANCE)):
        if not parity[name] <= allowed:  # this refuses NaN too
            raise TrainingError(
                f"the graph's probabilities differ by {parity[name]:.2g} ({name}); "
                f"at most {allowed:g} is allowed"
            )
    return parity


def measure_parity(
    model: Model, network: Network, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Largest differences in probability over clips of mixed length.

    ``torch``: ONNX Runtime against torch, each clip alone. ``padding``: in ONNX Runtime, a clip
    alone against the same clip in a batch with longer ones.
    """
    step = max(1, len(clips) // _CLIPS)
    longest = int(LONGEST_S * SAMPLE_RATE_HZ)
    chosen = [clip[:longest] for clip in clips[::step][:_CLIPS] if len(clip) >= 512]
    versus_torch = versus_padding = 0.0
    waveform, lengths = pad(chosen)
    together, _ = model.run(waveform.numpy(), lengths.numpy())
    for row, clip in enumerate(chosen):
        alone, _ = model.run(clip[None], np.array([len(clip)], np.int64))
        with torch.no_grad():
            logits, _ = network(torch.from_numpy(clip[None]), torch.tensor([len(clip)]))
        found = softmax(alone[0])
        versus_torch = max(versus_torch, float(np.abs(found - softmax(logits.numpy()[0])).max()))
        versus_padding = max(versus_padding, float(np.abs(found - softmax(together[row])).max()))
    return {"torch": versus_torch, "padding": versus_padding}
