"""Encoders: waveforms to frames; one file a family, and the way from a name to weights."""

from pathlib import Path

from ...errors import TrainingError
from ...plugins import Plugins
from .encoder import Encoder, Sizes
from .huggingface import HuggingFace
from .onnx_file import OnnxFile
from .whisper import Whisper

__all__ = ["ENCODERS", "Encoder", "Sizes", "load_pretrained"]

ENCODERS: Plugins[type[Encoder]] = Plugins(
    "nnpm.encoders",
    "encoder",
    {family.family: family for family in (Whisper, HuggingFace, OnnxFile)},
    lambda found: isinstance(found, type) and issubclass(found, Encoder),
)
"""The families, by the value of ``encoder.family``, and those of installed packages."""


def load_pretrained(family: str, source: str, layers: int) -> Encoder:
    """An encoder with its pretrained weights.

    Args:
        family: a name of :data:`ENCODERS`.
        source: a local folder (or ONNX file), or an id of a model hub, which is fetched.
        layers: how many to keep, from the first; 0 keeps all.

    Raises:
        TrainingError: if the family is unknown, or no such encoder can be read.
    """
    encoder = ENCODERS.find(family)
    return encoder.pretrained(_folder(source, encoder.files), layers)


def _folder(source: str, files: tuple[str, ...]) -> Path:
    """A local folder, or the snapshot of a hub's model with these files."""
    local = Path(source).expanduser()
    if local.exists():
        return local
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise TrainingError(f"encoder.source is {source}: there is no such folder")
    from huggingface_hub import snapshot_download  # takes a second

    try:
        # whoever trains names the source; weights are safetensors, and nothing is unpickled
        found = snapshot_download(source, allow_patterns=list(files))  # nosec B615
        return Path(found)
    except Exception as error:  # the hub's client raises a dozen types, all for "not there"
        raise TrainingError(
            f"encoder.source is {source}: there is no such folder, and the model hub does not give "
            f"it ({type(error).__name__}); download it elsewhere, and set encoder.source to the "
            "folder"
        ) from None
