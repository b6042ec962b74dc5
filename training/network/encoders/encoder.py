"""What every speech encoder is: waveforms to frames, from a pretrained folder or a run's sizes.

Weights are data: they are read from safetensors, checked name by name, and never unpickled.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import TrainingError

Sizes = dict[str, Any]
"""All that an encoder must know to be built without its pretrained folder; JSON."""


class Encoder(nn.Module, ABC):
    """Waveforms to a sequence of frames, of any length.

    Attributes:
        width: numbers per frame.
        sizes: what :meth:`build` needs, as a run folder stores it.
    """

    family: ClassVar[str]
    """The value of ``encoder.family``."""
    width: int
    sizes: Sizes

    @classmethod
    @abstractmethod
    def pretrained(cls, folder: Path, layers: int) -> Self:
        """Read an encoder and its pretrained weights.

        Args:
            folder: in the family's own layout.
            layers: how many to keep, from the first; 0 keeps all.

        Raises:
            TrainingError: if the folder holds no encoder of this family, or a tensor is missing or
                of another shape.
        """

    @classmethod
    @abstractmethod
    def build(cls, sizes: Sizes) -> Self:
        """Make the same encoder with random weights, for those of a finished run."""

    @abstractmethod
    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a padded batch; what lies behind a clip's end changes nothing.

        Args:
            waveform: in [-1, 1] at 16 kHz, shape ``(batch, num_samples)``.
            lengths: samples of each clip, int64, shape ``(batch,)``.

        Returns:
            Frames ``(batch, num_frames, width)``, and which of them belong to the clip, bool
            ``(batch, num_frames)``.
        """

    @abstractmethod
    def stages(self) -> list[list[nn.Parameter]]:
        """Groups of parameters that are fine-tuned, from the input upwards; empty if frozen."""


def read_config(folder: Path, families: Iterable[str]) -> dict[str, Any]:
    """Read ``config.json`` of a folder in the layout of transformers.

    Args:
        folder: holds ``config.json`` and ``model.safetensors``.
        families: the values of ``model_type`` that fit.

    Raises:
        TrainingError: if there is none, or it is of another family.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found = config["model_type"]
    except OSError as error:
        raise TrainingError(
            f"{folder} holds no speech encoder: {path.name} cannot be read ({error.strerror})"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise TrainingError(
            f"{folder} holds no speech encoder: {path.name} names no model_type"
        ) from None
    if found not in set(families):
        raise TrainingError(
            f"{folder} holds a model of type {str(found)[:40]!r}; this family takes "
            f"{', '.join(sorted(families))}: set encoder.family"
        )
    assert isinstance(config, dict)
    return config


def read_tensors(folder: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read ``model.safetensors`` as float32, without the first prefix that a name starts with.

    Raises:
        TrainingError: if it cannot be read.
    """
    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"the weights in {path} cannot be read: {error}") from None
    named = {}
    for name, tensor in tensors.items():
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        named[name] = tensor.float()
    return named


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy the tensors that a module has; others are passed over.

    Raises:
        TrainingError: if one is missing or of another shape.
    """
    own = module.state_dict()
    for name, value in own.items():
        found = tensors.get(name)
        if found is None:
            raise TrainingError(f"{source} has no tensor {name}")
        if found.shape != value.shape:
            raise TrainingError(
                f"{source}: the tensor {name} has the shape {tuple(found.shape)}; the config says "
                f"{tuple(value.shape)}"
            )
    module.load_state_dict({name: tensors[name] for name in own})


def size(config: Mapping[str, Any], name: str, folder: Path) -> int:
    """A size of ``config.json``.

    Raises:
        TrainingError: if it is no whole number above 0.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 20:
        raise TrainingError(f"{folder}/config.json: {name} is {value!r}; it must be a whole number")
    return value


def fewer(layers: int, there: int, folder: Path) -> int:
    """How many layers to keep.

    Raises:
        TrainingError: if there are not so many.
    """
    if layers > there:
        raise TrainingError(
            f"encoder.layers is {layers}; {folder} has {there}: set at most {there}, or 0 for all"
        )
    return layers or there
