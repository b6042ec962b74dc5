"""``nnpm train`` and its run folder: request, split, checkpoint, logs and the trained network."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ... import __version__
from ...service.files import replacing, require_place
from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ..config import Config, FrozenConfig
from ..corpora import Utterance, load
from ..data.clips import Ragged, load_clips
from ..data.splits import Split, split_speakers
from ..errors import TrainingError
from ..network.encoders import ENCODERS, Encoder, load_pretrained
from ..network.network import Network
from .kept import forget
from .processes import ALONE, Processes
from .trainer import Trainer

_REQUEST, _SPLIT, _ENCODER, _NETWORK = (
    "run.json",
    "split.json",
    "encoder.json",
    "network.safetensors",
)


class Request(BaseModel):
    """The request of ``nnpm train``, as ``run.json`` stores it: enough to run it again.

    Attributes:
        corpora: names of the source corpora.
        data: folder that holds one folder per corpus.
        seed: of split, weights, draws and augmentation.
        config: the recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpora: tuple[str, ...]
    data: Path
    seed: int
    config: Config


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The labelled clips of a run, split by speaker.

    Attributes:
        labels: emotions in the order of the logits.
        split: utterances by side.
    """

    labels: tuple[str, ...]
    split: Split
    _place: dict[Path, int]
    _clips: Ragged

    @property
    def stem(self) -> str:
        """Name of the files with the decoded clips, by size and time of what was decoded."""
        return self._clips.stem.name

    def clips(self, utterances: Sequence[Utterance]) -> Ragged:
        """The samples of some utterances as recorded, one row each, in the order given."""
        return self._clips.select([self._place[utterance.path] for utterance in utterances])


def load_training_data(request: Request, cache: Path) -> TrainingData:
    """Read the corpora, decode their clips, and split their speakers.

    Args:
        request: corpora, emotions, shares and seed.
        cache: folder for decoded clips.

    Returns:
        The clips and their split; the same for the same request and corpora.

    Raises:
        CorpusError: if a corpus cannot be read.
        TrainingError: if there are fewer than two emotions or too few speakers, or a clip cannot be
            decoded.
    """
    if len(set(request.corpora)) < len(request.corpora):
        raise TrainingError(f"--corpora is {' '.join(request.corpora)}: name each corpus only once")
    learnt = request.config.emotions
    utterances = [
        utterance
        for name in request.corpora
        for utterance in load(name, request.data)
        if not learnt or utterance.emotion in learnt
    ]
    labels = tuple(sorted({utterance.emotion for utterance in utterances}))
    if len(labels) < 2:
        raise TrainingError(
            f"the corpora have {len(labels)} of the emotions to learn "
            f"({', '.join(labels) or 'none'}); at least 2 are required: give more corpora, or "
            "change emotions in the config"
        )
    split = split_speakers(utterances, request.config.split, request.seed)
    clips = load_clips(utterances, cache)
    return TrainingData(
        labels,
        split,
        {utterance.path: place for place, utterance in enumerate(utterances)},
        clips,
    )


def train(
    run: Path,
    request: Request,
    *,
    cache: Path,
    device: torch.device,
    resume: bool,
    processes: Processes = ALONE,
) -> None:
    """Train a network into a run folder.

    Args:
        run: the folder; it must be new, or hold an unfinished run when resuming.
        request: what to train.
        cache: folder for decoded clips.
        device: where to train.
        resume: go on from the checkpoint.
        processes: those that train together; the first of them alone sees the folder.

    Raises:
        TrainingError: if the folder holds another run, or the request cannot be carried out.
        CorpusError: if a corpus cannot be read.
        OSError: if the folder cannot be written.
    """
    resume = resume or (processes.again and (run / _REQUEST).exists())
    if processes.first:
        _check(run, request, resume=resume)
    given, frozen = request.config.encoder, request.config.frozen
    if frozen.copies and processes.count > 1:
        raise TrainingError(
            f"frozen.copies is {frozen.copies}, and {processes.count} processes train together: "
            "kept states are read by one; train with one, or set frozen.copies to 0"
        )
    with processes.one_at_first():
        encoder = load_pretrained(given.family, given.source, given.layers)
        _check_frozen(encoder, frozen)
        data = load_training_data(request, cache)
    if processes.count > 1:
        processes.require_same(_digest(request, data, encoder))
    # of the files that were decoded, too
    known = _digest(request, data, encoder) + data.stem if frozen.copies else ""
    if processes.first:
        _check(run, request, resume=resume)  # again, for decoding may take an hour
        run.mkdir(parents=True, exist_ok=True)
        check_same_data(run, data)
        _write(run / _REQUEST, request.model_dump_json(indent=2) + "\n")
        _write(run / _SPLIT, json.dumps(_describe(data), indent=2) + "\n")
        _write(run / _ENCODER, json.dumps({"family": given.family, "sizes": encoder.sizes}) + "\n")
    train_side = data.split.train
    trainer = Trainer(
        request.config,
        data.labels,
        encoder,
        train_side,
        data.clips(train_side).__getitem__,
        run,
        request.seed,
        device,
        processes,
    )
    if resume:
        trainer.resume()
    trainer.keep(known)
    network = trainer.fit().cpu()
    if processes.first:
        with replacing(run / _NETWORK) as temporary:
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, temporary)
        forget(run)


def _check_frozen(encoder: Encoder, frozen: FrozenConfig) -> None:
    """Check that the encoder has so many stages, and something to keep, before any clip is decoded.

    Raises:
        TrainingError: if it has not.
    """
    if frozen.stages > (there := len(encoder.stages())):
        raise TrainingError(
            f"frozen.stages is {frozen.stages}; this {encoder.family} encoder has {there}: set at "
            f"most {there}"
        )
    if frozen.copies:
        with torch.no_grad():
            encoder.lower(
                torch.zeros(1, SAMPLE_RATE_HZ), torch.tensor([SAMPLE_RATE_HZ]), frozen.stages
            )


def _digest(request: Request, data: TrainingData, encoder: Encoder) -> str:
    """A digest of what a network depends on, wherever a machine keeps it; in hexadecimal."""
    known = (
        __version__,
        request.model_dump_json(exclude={"data"}),
        json.dumps(_describe(data)),
        json.dumps(encoder.sizes),  # an ONNX file is one of them
    )
    digest = hashlib.sha256("\n".join(known).encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def choose_device(name: str) -> torch.device:
    """Choose a device by name; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        TrainingError: if this machine has no such device.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, there in found.items() if there), "cpu")
    if name != "cpu" and not found[name]:
        raise TrainingError(f"torch finds no {name} device on this machine; use --device cpu")
    return torch.device(name)


def _check(run: Path, request: Request, *, resume: bool) -> None:
    """Check that the folder is new or, when resuming, holds the same request."""
    if run.exists() and not run.is_dir():
        raise TrainingError(f"{run} is a file; choose another --out")
    require_place(run / _REQUEST)
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
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_same_data(run: Path, data: TrainingData) -> None:
    """Check that the corpora are the ones that a run was started with.

    The split is drawn from the corpora as they are found. If they have changed, speakers of
    training could end up among those that calibrate and test.

    Raises:
        TrainingError: if they have changed.
    """
    path = run / _SPLIT
    if not path.exists():
        return
    if json.loads(path.read_text(encoding="utf-8")) != _describe(data):
        raise TrainingError(
            f"the corpora are not those that {run} was started with ({_SPLIT} lists their "
            "speakers), so other speakers would be held out: restore them, or train again"
        )


def _describe(data: TrainingData) -> dict[str, Any]:
    """The content of ``split.json``: emotions, speakers and clips by side, and a digest."""
    sides = {"train": data.split.train, "held_out": data.split.held_out}
    clips = [
        (side, u.corpus, u.speaker, u.emotion, u.path.name)
        for side, utterances in sides.items()
        for u in utterances
    ]
    return {
        "labels": list(data.labels),
        "speakers": {
            side: sorted({f"{u.corpus}/{u.speaker}" for u in utterances})
            for side, utterances in sides.items()
        },
        "clips": {side: len(utterances) for side, utterances in sides.items()},
        "digest": hashlib.sha256(json.dumps(clips).encode()).hexdigest(),
    }


def read(run: Path) -> Request:
    """Read the request of a run.

    Raises:
        TrainingError: if the folder holds no run.
    """
    try:
        return Request.model_validate(json.loads((run / _REQUEST).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} is not a run folder: {_REQUEST} cannot be read") from error


def is_finished(run: Path) -> bool:
    """Whether a run has finished: its network is there."""
    return (run / _NETWORK).exists()


def require_finished(run: Path) -> None:
    """Check that a run has finished.

    Raises:
        TrainingError: if it has not.
    """
    if not is_finished(run):
        raise TrainingError(f"{run} has not finished; continue it with nnpm train --resume")


def trained_network(run: Path, request: Request, labels: tuple[str, ...]) -> Network:
    """Load the network of a finished run.

    Raises:
        TrainingError: if the run has not finished, or its network does not fit the recipe.
    """
    require_finished(run)
    try:
        found = json.loads((run / _ENCODER).read_text(encoding="utf-8"))
        encoder = ENCODERS.find(found["family"]).build(found["sizes"])
        tensors = load_file(run / _NETWORK)
        # a manifest may name several corpora, so that the request does not tell how many there are
        num_corpora = len(tensors["head.mean"])
        network = Network(encoder, request.config.head, labels, num_corpora)
        network.load_state_dict(tensors)
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise TrainingError(
            f"{run / _NETWORK} is damaged, or does not fit {_REQUEST}, {_ENCODER} and "
            f"{len(labels)} emotions"
        ) from error
    return network.eval()


def labels(run: Path) -> tuple[str, ...]:
    """The emotions of a run, in the order of the logits.

    Raises:
        TrainingError: if the folder holds no run.
    """
    try:
        found = json.loads((run / _SPLIT).read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{run} is not a run folder: {_SPLIT} cannot be read") from error
    return tuple(found)


def fingerprint(run: Path) -> str:
    """A digest of the network of a finished run and of its split, in hexadecimal.

    Raises:
        TrainingError: if it has not finished.
    """
    require_finished(run)
    digest = hashlib.sha256((run / _NETWORK).read_bytes())
    digest.update((run / _SPLIT).read_bytes())
    return digest.hexdigest()
