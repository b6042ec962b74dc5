"""A source network ready to be adapted: memory and decision as a bundle would hold them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.inference.bundle import Memory
from service.inference.card import Decision
from service.inference.labels import CORE_EMOTIONS
from training.adaptation.material import Source
from training.adaptation.restore import restore_source
from training.answering import decide, remember
from training.errors import TrainingError
from training.network import Network
from training.replacing import replacing
from training.run import check_material, fingerprint, gather, labels, read, trained_network

_VERSION = 1  # raised when memory or decision are made otherwise


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """What ``nnpm export`` makes of a run, without the graphs.

    Attributes:
        network: in evaluation mode.
        memory: float16 numbers, as a bundle stores them.
        decision: fitted on the source's validation speakers.
        fingerprint: of the run.
    """

    network: Network
    memory: Memory
    decision: Decision
    fingerprint: str

    @property
    def source(self) -> Source:
        """The memory, as methods take it."""
        return restore_source(self.memory)


def load_base(run: Path, data: Path, cache: Path) -> Base:
    """Load a finished run; what takes a pass over the source is kept in ``cache``.

    Args:
        run: folder of ``nnpm train``.
        data: where the corpora are now.
        cache: folder for decoded clips, too.

    Raises:
        TrainingError: if the run has not finished, does not know the core emotions, or its corpora
            have changed.
        CorpusError: if a corpus cannot be read.
    """
    digest = fingerprint(run)
    request = read(run).model_copy(update={"data": data})
    network = trained_network(run, request, labels(run))
    if missing := set(CORE_EMOTIONS) - set(network.labels):
        raise TrainingError(
            f"{run} does not know {', '.join(sorted(missing))}, and the tables are of "
            f"{', '.join(CORE_EMOTIONS)}"
        )
    name = hashlib.sha256(f"{_VERSION} {digest} {request.config!r}".encode()).hexdigest()[:16]
    path = cache / f"benchmark-base-{name}.npz"
    if not path.exists():
        material = gather(request, cache)
        check_material(run, material)
        train = material.split.train
        memory = remember(network, train, material.clips(train))
        _write(path, memory, decide(network, memory, material, request.seed))
    return Base(network, *_read(path), digest)


def _write(path: Path, memory: Memory, decision: Decision) -> None:
    with replacing(path) as temporary, temporary.open("xb") as file:
        np.savez(
            file,
            features=memory.features.astype(np.float16),
            emotion=memory.emotion,
            corpus=np.array(memory.corpus),
            language=np.array(memory.language),
            decision=np.array(json.dumps(decision.model_dump(mode="json"))),
        )


def _read(path: Path) -> tuple[Memory, Decision]:
    with np.load(path) as stored:
        memory = Memory(
            stored["features"].astype(np.float32),
            stored["emotion"],
            tuple(stored["corpus"].tolist()),
            tuple(stored["language"].tolist()),
        )
        return memory, Decision.model_validate_json(str(stored["decision"]))
