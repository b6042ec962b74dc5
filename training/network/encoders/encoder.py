"""What every speech encoder is: waveforms to frames, from a pretrained folder or a run's sizes.

Weights are data: they are read from safetensors, checked name by name, and never unpickled.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...errors import TrainingError

Sizes = dict[str, Any]
"""All that an encoder must know to be built without its pretrained folder; JSON."""


class Encoder(nn.Module, ABC):
    """Waveforms to a sequence of frames, of any length.

    Attributes:
        width: numbers per frame.
        sizes: what :meth:`build` needs, as a run folder stores it.
        mask_p: probability of a gap in time and one in frequency, of a batch in training; for
            encoders that see a spectrum.
    """

    family: ClassVar[str]
    """The value of ``encoder.family``."""
    files: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors")
    """Patterns of the files that are fetched from a model hub."""
    width: int
    sizes: Sizes
    mask_p: float = 0.0

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

    def lower(self, waveform: Tensor, lengths: Tensor, frozen: int) -> tuple[Tensor, Tensor]:
        """What the part gives that does not learn: states, of which :meth:`upper` makes frames.

        A family that can be split overrides both; any other gives the frames of all its stages.

        Args:
            waveform: as of :meth:`forward`.
            lengths: as of :meth:`forward`.
            frozen: how many of the lowest stages do not learn; of those the family may leave some
                to :meth:`upper`.

        Returns:
            States ``(batch, num_frames, any width)``, and which of them belong to the clip.

        Raises:
            TrainingError: if there is nothing to keep beneath the stages that learn.
        """
        stages = len(self.stages())
        if frozen < stages:
            raise TrainingError(
                f"frozen.copies keeps states of the {self.family} encoder, and with frozen.stages "
                f"{frozen} there are none worth it: set frozen.stages to {self.least_frozen()} "
                f"or more (it has {stages} stages), or frozen.copies to 0"
            )
        frames: tuple[Tensor, Tensor] = self(waveform, lengths)
        return frames

    def upper(
        self,
        states: Tensor,
        mask: Tensor,
        frozen: int,  # noqa: ARG002 - of families that can be split
    ) -> tuple[Tensor, Tensor]:
        """Make frames of the states of :meth:`lower`; the two together are :meth:`forward`."""
        return states, mask

    def least_frozen(self) -> int:
        """With how many frozen stages :meth:`lower` has something to give."""
        return len(self.stages())


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
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TrainingError(
            f"{folder} holds no speech encoder: {path.name} names no model_type"
        ) from None
    if found not in list(families):  # whatever JSON there is, lists too
        raise TrainingError(
            f"{folder} holds a model of type {str(found)[:40]!r}; this family takes "
            f"{', '.join(sorted(families))}: set encoder.family"
        )
    assert isinstance(config, dict)
    return config


def size(config: Mapping[str, Any], name: str, folder: Path) -> int:
    """A size of ``config.json``.

    Raises:
        TrainingError: if it is no whole number from 1 to 2**20.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1 << 20:
        raise TrainingError(
            f"{folder}/config.json: {name} is {str(value)[:40]}; it must be a whole number from 1 "
            f"to {1 << 20}"
        )
    return value


def fewer(layers: int, there: int, folder: Path) -> int:
    """How many layers to keep; ``layers`` of 0 keeps all that are there.

    Raises:
        TrainingError: if there are not so many.
    """
    if layers > there:
        raise TrainingError(
            f"encoder.layers is {layers}; {folder} has {there}: set at most {there}, or 0 for all"
        )
    return layers or there


def fill(
    module: nn.Module, folder: Path, prefixes: Sequence[str], aliases: Mapping[str, str]
) -> None:
    """Read a module's tensors from ``model.safetensors``, as float32; others are not read.

    Args:
        module: its state is replaced.
        folder: holds ``model.safetensors``.
        prefixes: what names in the file may begin with, one after the other: a whole model calls
            ``model.encoder.conv1.weight`` what the encoder calls ``conv1.weight``.
        aliases: ends of names in the file, and what the module calls them.

    Raises:
        TrainingError: if the file cannot be read, or a tensor is missing, of another shape, or not
            finite.
    """
    path = folder / "model.safetensors"
    own = module.state_dict()
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for stored in file.keys():  # noqa: SIM118 - it is no dict
                name = _plain(stored, prefixes, aliases)
                if name in own:
                    tensors[name] = file.get_tensor(stored).float()
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TrainingError(
            f"the weights in {path} cannot be read: {str(reason).splitlines()[0]}"
        ) from None
    for name, value in own.items():
        found = tensors.get(name)
        if found is None:
            raise TrainingError(f"{path} has no tensor {name}")
        if found.shape != value.shape:
            raise TrainingError(
                f"{path}: the tensor {name} has the shape {tuple(found.shape)}; the config says "
                f"{tuple(value.shape)}"
            )
        if not bool(found.isfinite().all()):
            raise TrainingError(f"{path}: the tensor {name} holds numbers that are not finite")
    module.load_state_dict(tensors)


def _plain(name: str, prefixes: Sequence[str], aliases: Mapping[str, str]) -> str:
    """A tensor's name within the module.

    Examples:
        >>> _plain("model.encoder.conv1.weight", ("model.", "encoder."), {})
        'conv1.weight'
        >>> _plain("conv.weight_g", (), {"weight_g": "parametrizations.weight.original0"})
        'conv.parametrizations.weight.original0'
    """
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    for old, new in aliases.items():
        if name.endswith(f".{old}"):
            name = name.removesuffix(old) + new
    return name
