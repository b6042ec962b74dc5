"""A bundle's network and memory, back in torch."""

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from service.inference.bundle import Bundle, Memory
from training.adaptation.material import Source
from training.config import Config
from training.errors import TrainingError
from training.network import Network


def restore_network(bundle: Bundle) -> Network:
    """The whole network of a bundle, in evaluation mode.

    Raises:
        TrainingError: if its card holds no recipe, or its weights are of another one.
    """
    path = bundle.path / "weights.safetensors"
    try:
        config = Config.model_validate(bundle.card.training["config"])
    except (KeyError, ValidationError):
        raise TrainingError(
            f"{bundle.path} cannot be adapted: its card holds no recipe of this nnpm "
            "(training.config), so its network cannot be built"
        ) from None
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
        network = Network(config, bundle.labels)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError):
        raise TrainingError(f"{path} does not hold the network of the card's recipe") from None
    return network.eval()


def restore_source(memory: Memory) -> Source:
    """The memory of a bundle, as methods take it."""
    return Source(torch.from_numpy(memory.features), torch.from_numpy(memory.emotion))
