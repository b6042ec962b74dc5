"""The bundle: a model folder, all that training hands over to the service.

Files: ``bundle.json`` (the card) and its digest ``bundle.sha256``, ``model.onnx`` (waveform,
lengths -> logits, embedding), ``head.onnx`` (embedding -> logits, projection),
``memory.safetensors``, ``weights.safetensors``, ``probe.npz`` (golden clips with their logits and
embeddings) and ``README.md`` (model card). No pickle anywhere.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from ..files import sync, write_new
from .card import SCHEMA_VERSION, Card
from .errors import BundleError, validation_detail

CARD = "bundle.json"
SEAL = "bundle.sha256"
"""The card's own digest, as ``sha256sum --check`` reads it."""

FILES = (
    "model.onnx",
    "head.onnx",
    "memory.safetensors",
    "weights.safetensors",
    "probe.npz",
    "README.md",
)
"""The files whose digests are in the card."""

_NAMES = TypeAdapter(list[str])


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """The source's pooled features, one slot per utterance.

    Attributes:
        features: float32, shape ``(num_slots, D)``.
        emotion: index into the card's labels, int64, shape ``(num_slots,)``.
        corpus: name per slot.
        language: BCP-47 per slot.
    """

    features: NDArray[np.float32]
    emotion: NDArray[np.int64]
    corpus: tuple[str, ...]
    language: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle whose card and digests have been checked."""

    path: Path
    card: Card

    @property
    def labels(self) -> tuple[str, ...]:
        """Emotions in the order of the logits."""
        return self.card.labels

    def memory(self) -> Memory:
        """Read the memory.

        Raises:
            BundleError: if it cannot be read, or does not fit the card.
        """
        try:
            with safe_open(self.path / "memory.safetensors", framework="np") as file:
                names = file.metadata() or {}
                memory = Memory(
                    features=file.get_tensor("features").astype(np.float32),
                    emotion=file.get_tensor("emotion").astype(np.int64),
                    corpus=_pick(names["corpora"], file.get_tensor("corpus")),
                    language=_pick(names["languages"], file.get_tensor("language")),
                )
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise BundleError(f"{self.path / 'memory.safetensors'} cannot be read.") from error
        self._check(memory)
        return memory

    def _check(self, memory: Memory) -> None:
        features, emotion = memory.features, memory.emotion
        counts = {*features.shape[:1], emotion.size, len(memory.corpus), len(memory.language)}
        if features.ndim != 2 or emotion.ndim != 1 or len(counts) > 1 or not features.size:
            raise BundleError(
                f"The memory of {self.path} holds {features.shape} features, {emotion.size} "
                f"emotions, {len(memory.corpus)} corpora and {len(memory.language)} languages; "
                "it must hold one of each per utterance."
            )
        if not np.isfinite(features).all():
            raise BundleError(f"The memory of {self.path} holds features that are not finite.")
        if emotion.min() < 0 or emotion.max() >= len(self.labels):
            raise BundleError(
                f"The memory of {self.path} has emotions {emotion.min()} to {emotion.max()}; "
                f"the card allows 0 to {len(self.labels) - 1}."
            )

    def probe(self) -> dict[str, NDArray[np.float32]]:
        """Read the golden clips with their logits and embeddings.

        Returns:
            ``waveform`` (num_clips, num_samples), ``lengths`` (num_clips,), ``logits``
            (num_clips, num_emotions) and ``embedding`` (num_clips, D).

        Raises:
            BundleError: if they cannot be read.
        """
        try:
            with (
                (self.path / "probe.npz").open("rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                return {
                    name: arrays[name] for name in ("waveform", "lengths", "logits", "embedding")
                }
        except Exception as error:  # numpy, zipfile and zlib each have their own
            raise BundleError(f"{self.path / 'probe.npz'} cannot be read.") from error


def load(path: Path) -> Bundle:
    """Open a bundle and verify the digest of every file.

    Raises:
        BundleError: if it is missing, damaged, of another schema, or not a bundle.
    """
    try:
        card = Card.model_validate_json((path / CARD).read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path} is not a bundle: it has no {CARD}.") from None
    except OSError as error:
        raise BundleError(f"{path / CARD} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        fault = validation_detail(error.errors(), document="the file", limit=1)
        raise BundleError(
            f"{path / CARD} is not a card of schema {SCHEMA_VERSION}: {fault}"
        ) from None
    _verify(path, CARD, _read_seal(path), "the seal")
    for name in FILES:
        if name not in card.files:
            raise BundleError(f"{path / CARD} has no digest of {name}.")
        _verify(path, name, card.files[name], "the card")
    return Bundle(path, card)


def save(path: Path, card: Card, files: Mapping[str, bytes]) -> Bundle:
    """Write a whole bundle, or nothing.

    Args:
        path: the folder to make; it must not exist.
        card: everything but the digests, which are computed here.
        files: the contents of :data:`FILES`.

    Raises:
        BundleError: if ``path`` exists, or cannot be written.
    """
    if path.exists():
        raise BundleError(f"{path} exists; bundles are not overwritten: choose another folder.")
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in FILES}
    card = card.model_copy(update={"files": digests})
    text = (card.model_dump_json(indent=2) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            for name in FILES:
                _write_synced(temporary / name, files[name])
            _write_synced(temporary / CARD, text)
            _write_synced(temporary / SEAL, seal(text))
            temporary.chmod(0o755)
            sync(temporary)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror or error}.") from error
    return Bundle(path, card)


def _pick(names: str, indices: NDArray[np.integer]) -> tuple[str, ...]:
    """Look names, a JSON list, up by index."""
    distinct = _NAMES.validate_json(names)
    if (indices < 0).any():
        raise IndexError("a negative index counts from the end")
    return tuple(distinct[index] for index in indices)


def seal(card: bytes) -> bytes:
    """The contents of :data:`SEAL` for a card as it is written."""
    return f"{hashlib.sha256(card).hexdigest()}  {CARD}\n".encode()


def _read_seal(path: Path) -> str:
    try:
        return (path / SEAL).read_text(encoding="ascii", errors="replace")[:64]
    except OSError as error:
        raise BundleError(f"{path / SEAL} cannot be read: {error.strerror}.") from None


def _verify(path: Path, name: str, expected: str, source: str) -> None:
    try:
        with (path / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path / name} cannot be read: {error.strerror}.") from None
    if found != expected:
        raise BundleError(
            f"{path / name} is damaged: its sha256 is {found[:12]}…, "
            f"{source} says {expected[:12]}…."
        )


def _write_synced(path: Path, data: bytes) -> None:
    write_new(path, data)
    sync(path)
