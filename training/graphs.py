"""Torch modules to ONNX graphs."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from training.network import Network

OPSET = 20


class _HeadGraph(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.head = network.head

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        logits, projection = self.head(embedding)
        return logits, projection


def network_graph(network: Network) -> bytes:
    """``model.onnx``: waveform ``(batch, samples)``, lengths ``(batch,)`` -> logits, embedding."""
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
    """``head.onnx``: embedding ``(n, D)`` to logits and projection."""
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
    """Export in evaluation mode; a dynamic axis that the exporter would fix is an error."""
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
