"""The bundle: a model folder, all that training hands over to the service.

Files: ``bundle.json`` (the card) and its digest ``bundle.sha256``, ``model.onnx`` (waveform,
lengths -> probabilities, out_of_domain, embedding, logits), ``head.safetensors`` and
``memory.safetensors`` (opened by adaptation, and to list neighbours), ``probe.npz`` (golden clips
and their answers), ``README.md`` (model card) and ``NOTICE`` (licences). No pickle anywhere.

Bundles of the first generation, schema 1, load as well; :data:`FILES` lists their files.
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
from .card import Card
from .errors import BundleError, OldBaseError, validation_detail
from .head import Head

CARD = "bundle.json"
SEAL = "bundle.sha256"
"""The card's own digest, as ``sha256sum --check`` reads it."""

FILES = {
    1: (
        "model.onnx",
        "head.onnx",
        "memory.safetensors",
        "weights.safetensors",
        "probe.npz",
        "README.md",
    ),
    2: (
        "model.onnx",
        "head.safetensors",
        "memory.safetensors",
        "probe.npz",
        "README.md",
        "NOTICE",
    ),
}
"""The files whose digests are in the card, by its ``schema_version``."""

FEATURE_STEPS = 32
"""Steps of a standardised feature's unit: the memory stores it as int8, up to 127 steps from 0."""

_PROBE = {
    1: ("waveform", "lengths", "logits", "embedding"),
    2: ("waveform", "lengths", "probabilities", "out_of_domain", "embedding", "logits"),
}
_NAMES = TypeAdapter(list[str])


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """The source's pooled features, one slot per utterance.

    Attributes:
        features: float32, shape ``(num_slots, D)``; each corpus standardised by its own
            statistics. In the first generation as they were pooled.
        emotion: index into the card's labels, int64, shape ``(num_slots,)``.
        corpus: name per slot.
        language: BCP-47 per slot.
        speaker: name per slot, unique within a corpus; empty in the first generation.
    """

    features: NDArray[np.float32]
    emotion: NDArray[np.int64]
    corpus: tuple[str, ...]
    language: tuple[str, ...]
    speaker: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle whose card and digests have been checked."""

    path: Path
    card: Card

    @property
    def labels(self) -> tuple[str, ...]:
        """Emotions in the order of the logits."""
        return self.card.labels

    def head(self) -> Head:
        """Read the head.

        Raises:
            OldBaseError: if the bundle is of the first generation.
            BundleError: if it cannot be read, or does not fit the card.
        """
        if self.card.schema_version == 1:
            raise OldBaseError(self.path)
        path = self.path / "head.safetensors"
        try:
            head = Head.from_bytes(path.read_bytes())
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}.") from None
        except BundleError as error:
            raise BundleError(f"{self.path}: {error}") from error
        if len(head.classes) != len(self.labels):
            raise BundleError(
                f"{path} has {len(head.classes)} classes; the card names {len(self.labels)} "
                "emotions."
            )
        return head

    def memory(self) -> Memory:
        """Read the memory.

        Raises:
            BundleError: if it cannot be read, or does not fit the card.
        """
        path = self.path / "memory.safetensors"
        try:
            with safe_open(path, framework="np") as file:
                names = file.metadata() or {}

                def named(one: str, several: str) -> tuple[str, ...]:
                    return _pick(names[several], file.get_tensor(one))

                features = file.get_tensor("features")
                memory = Memory(
                    features=features.astype(np.float32),
                    emotion=file.get_tensor("emotion").astype(np.int64),
                    corpus=named("corpus", "corpora"),
                    language=named("language", "languages"),
                    speaker=named("speaker", "speakers") if self.card.schema_version > 1 else (),
                )
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise BundleError(f"{path} cannot be read.") from error
        if self.card.schema_version > 1:
            if features.dtype != np.int8:
                raise BundleError(f"{path} holds features of {features.dtype}; they must be int8.")
            memory.features[...] *= np.float32(1 / FEATURE_STEPS)
        self._check(memory)
        return memory

    def _check(self, memory: Memory) -> None:
        features, emotion = memory.features, memory.emotion
        names = {"corpora": memory.corpus, "languages": memory.language}
        if self.card.schema_version > 1:
            names["speakers"] = memory.speaker
        counts = {*features.shape[:1], emotion.size, *map(len, names.values())}
        if features.ndim != 2 or emotion.ndim != 1 or len(counts) > 1 or not features.size:
            held = [f"{emotion.size} emotions", *(f"{len(v)} {k}" for k, v in names.items())]
            raise BundleError(
                f"The memory of {self.path} holds {features.shape} features, "
                f"{', '.join(held[:-1])} and {held[-1]}; it must hold one of each per utterance."
            )
        if not np.isfinite(features).all():
            raise BundleError(f"The memory of {self.path} holds features that are not finite.")
        if emotion.min() < 0 or emotion.max() >= len(self.labels):
            raise BundleError(
                f"The memory of {self.path} has emotions {emotion.min()} to {emotion.max()}; "
                f"the card allows 0 to {len(self.labels) - 1}."
            )

    def probe(self) -> dict[str, NDArray[np.float32]]:
        """Read the golden clips with the answers of the graph.

        Returns:
            ``waveform`` (num_clips, num_samples), ``lengths`` (num_clips,), ``probabilities`` and
            ``logits`` (num_clips, num_emotions), ``out_of_domain`` (num_clips,) and ``embedding``
            (num_clips, D); of the first generation, the logits and embeddings alone.

        Raises:
            BundleError: if they cannot be read.
        """
        try:
            with (
                (self.path / "probe.npz").open("rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                return {name: arrays[name] for name in _PROBE[self.card.schema_version]}
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
            f"{path / CARD} is not a card of schema 1 or {max(FILES)}: {fault}"
        ) from None
    _verify(path, CARD, _read_seal(path), "the seal")
    for name in FILES[card.schema_version]:
        if name not in card.files:
            raise BundleError(f"{path / CARD} has no digest of {name}.")
        _verify(path, name, card.files[name], "the card")
    return Bundle(path, card)


def save(path: Path, card: Card, files: Mapping[str, bytes]) -> Bundle:
    """Write a whole bundle, or nothing.

    Args:
        path: the folder to make; it must not exist.
        card: everything but the digests, which are computed here.
        files: the contents of the :data:`FILES` of the card's schema; others are not written.

    Raises:
        BundleError: if ``path`` exists, or cannot be written.
    """
    if path.exists():
        raise BundleError(f"{path} exists; bundles are not overwritten: choose another folder.")
    names = FILES[card.schema_version]
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in names}
    card = card.model_copy(update={"files": digests})
    text = (card.model_dump_json(indent=2) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            for name in names:
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
