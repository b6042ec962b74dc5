"""ONNX Runtime against torch: a bundle must say what the network said."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from service.inference.audio import SAMPLE_RATE_HZ
from service.inference.model import Model, softmax
from training.batches import pad
from training.errors import TrainingError
from training.network import Network

PARITY_TOLERANCE = 1e-4
"""Largest difference in probability between ONNX Runtime and torch."""

PADDING_TOLERANCE = 1e-5
"""Largest difference in probability between a clip alone and in a padded batch."""

LONGEST_S = 6.0
"""Of a clip; a batch of many whole recordings would fill the memory."""

_CLIPS = 100


def require_parity(
    model: Model, network: Network, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Measure, and refuse too large a difference.

    Returns:
        As :func:`measure`.

    Raises:
        TrainingError: if the graph does not say what torch says.
    """
    parity = measure(model, network, clips)
    for name, allowed in (("torch", PARITY_TOLERANCE), ("padding", PADDING_TOLERANCE)):
        if not parity[name] <= allowed:  # nor if it is not a number
            raise TrainingError(
                f"the graph's answers differ by {parity[name]:.2g} in probability ({name}); "
                f"at most {allowed:g} is allowed"
            )
    return parity


def measure(
    model: Model, network: Network, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Largest differences in probability over clips of mixed length.

    ``torch``: ONNX Runtime against torch, each clip alone. ``padding``: the same clip alone
    against itself in a batch with longer ones.
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
