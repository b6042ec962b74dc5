"""A new head in graphs that were exported with another: numbers change, layers do not."""

from collections.abc import Iterator

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from training.classifier import Head

_SAME = 1e-6


def replace_head(graph: bytes, old: Head, new: Head) -> bytes | None:
    """Put the numbers of ``new`` where those of ``old`` are; seconds faster than an export.

    A tensor is found by its value, for exporters fold and rename them as they see fit.

    Args:
        graph: ``model.onnx`` or ``head.onnx``, exported with ``old``.
        old: the head whose numbers it holds.
        new: of the same shape.

    Returns:
        The graph with the new numbers; None where one of the old ones is not there just once.
    """
    model = onnx.load_from_string(graph)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    for before, after in zip(_tensors(old), _tensors(new), strict=True):
        places = [
            name
            for name, value in values.items()
            if value.shape == before.shape and np.allclose(value, before, rtol=_SAME, atol=_SAME)
        ]
        if len(places) != 1:
            return None
        tensors[places[0]].CopyFrom(numpy_helper.from_array(after, places[0]))
    changed: bytes = model.SerializeToString()
    return changed


@torch.no_grad()
def _tensors(head: Head) -> Iterator[NDArray[np.float32]]:
    """What adaptation changes, as exported graphs hold it."""
    norm = head.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    yield norm.running_mean.numpy()
    yield norm.running_var.numpy()
    yield head.projection.weight.numpy()
    yield head.projection.bias.numpy()
    yield np.ascontiguousarray(F.normalize(head.classes, dim=1).T.numpy())
