"""A run folder: what was asked for, its checkpoint, its logs and the trained network."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file

from training.clips import load_clips
from training.config import Config, FrontEndConfig
from training.corpora import Utterance, load
from training.errors import TrainingError
from training.features import load_features
from training.network import Network
from training.ragged import Ragged
from training.splits import Split, split_speakers
from training.trainer import Trainer
from training.variants import load_variants

_REQUEST, _NETWORK = "run.json", "network.safetensors"


class Request(BaseModel):
    """What ``nnpm train`` was asked for: enough to run it again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpora: tuple[str, ...]
    data: Path
    seed: int
    config: Config


@dataclass(frozen=True, slots=True)
class Material:
    """The utterances of a request with their clips, split by speaker, and their emotions."""

    labels: tuple[str, ...]
    split: Split
    _place: dict[Path, int]
    _clips: Ragged
    _variants: list[Ragged]

    def clips(self, utterances: Sequence[Utterance]) -> Ragged:
        """The clips of some of the utterances, as recorded."""
        return self._clips.select(self._places(utterances))

    def variants(self, utterances: Sequence[Utterance]) -> list[Ragged]:
        """Their waveform variants: rooms, noises, codecs, other voices."""
        places = self._places(utterances)
        return [variant.select(places) for variant in self._variants]

    def features(self, utterances: Sequence[Utterance], config: FrontEndConfig) -> list[Ragged]:
        """Their log-mel features, then those of their variants."""
        places = self._places(utterances)
        versions = [self._clips, *self._variants]
        return [load_features(version, config).select(places) for version in versions]

    def _places(self, utterances: Sequence[Utterance]) -> list[int]:
        return [self._place[utterance.path] for utterance in utterances]


def gather(request: Request, cache: Path) -> Material:
    """Read the corpora, decode and vary their clips, and split their speakers.

    Args:
        request: corpora, emotions, shares and seed.
        cache: folder for decoded clips and their variants.

    Raises:
        CorpusError: if a corpus cannot be read.
        TrainingError: if nothing is left to learn, or a corpus has too few speakers.
    """
    wanted = request.config.emotions
    utterances = [
        utterance
        for name in request.corpora
        for utterance in load(name, request.data)
        if not wanted or utterance.emotion in wanted
    ]
    labels = tuple(sorted({utterance.emotion for utterance in utterances}))
    if len(labels) < 2:
        raise TrainingError(
            f"{len(labels)} emotion is left after choosing {', '.join(wanted) or 'all'}; "
            "a classifier needs two or more"
        )
    clips = load_clips(utterances, cache)
    return Material(
        labels,
        split_speakers(utterances, request.config.split, request.seed),
        {utterance.path: place for place, utterance in enumerate(utterances)},
        clips,
        load_variants(clips, request.config.augment.variants),
    )


def train(run: Path, request: Request, *, cache: Path, device: torch.device, resume: bool) -> None:
    """Train a network into a run folder.

    Args:
        run: the folder; it must be new, or hold an unfinished run when resuming.
        request: what to train.
        cache: folder for decoded clips and their variants.
        device: where to train.
        resume: go on from the checkpoint.

    Raises:
        TrainingError: if the folder holds another run.
        CorpusError: if a corpus cannot be read.
    """
    _check(run, request, resume=resume)
    material = gather(request, cache)
    run.mkdir(parents=True, exist_ok=True)
    _write(run / _REQUEST, request.model_dump_json(indent=2) + "\n")
    split = material.split
    features = material.features(split.train, request.config.front_end)
    trainer = Trainer(
        request.config, material.labels, split.train, features, run, request.seed, device
    )
    if resume:
        trainer.resume()
    validation = list(material.clips(split.validation)), [u.emotion for u in split.validation]
    network = trainer.fit(validation)
    temporary = run / f"{_NETWORK}.tmp"
    save_file({k: v.contiguous() for k, v in network.cpu().state_dict().items()}, temporary)
    temporary.replace(run / _NETWORK)


def choose_device(name: str) -> torch.device:
    """A device by name; auto takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        TrainingError: if this machine has no such device.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, there in found.items() if there), "cpu")
    if name != "cpu" and not found[name]:
        raise TrainingError(f"torch finds no {name} device here; take --device cpu")
    return torch.device(name)


def _check(run: Path, request: Request, *, resume: bool) -> None:
    """The folder is new, or holds this very request when resuming."""
    if not resume:
        if run.exists() and any(run.iterdir()):
            raise TrainingError(f"{run} is not empty; add --resume, or choose another --out")
    elif not (run / _REQUEST).exists():
        raise TrainingError(f"{run} holds no run to resume ({_REQUEST} is missing)")
    elif read(run) != request:
        raise TrainingError(
            f"{run} was started with other corpora, data, seed or config; "
            "resume with the same ones, or choose another --out"
        )


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read(run: Path) -> Request:
    """Read what a run was asked for.

    Raises:
        TrainingError: if the folder holds no run.
    """
    try:
        return Request.model_validate(json.loads((run / _REQUEST).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} is not a run folder: {_REQUEST} cannot be read") from error


def trained_network(run: Path, request: Request, labels: tuple[str, ...]) -> Network:
    """Load the network of a finished run.

    Raises:
        TrainingError: if the run has not finished.
    """
    path = run / _NETWORK
    if not path.exists():
        raise TrainingError(f"{run} has not finished training; go on with nnpm train --resume")
    network = Network(request.config, labels)
    network.load_state_dict(load_file(path))
    return network.eval()
