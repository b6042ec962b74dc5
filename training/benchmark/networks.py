"""The source networks of a benchmark: found among finished runs, or trained.

:class:`Base` is a source network ready to be adapted, with memory and decision as its bundle would
have them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...service.files import replacing
from ...service.inference.bundle import Memory
from ...service.inference.card import CORE_EMOTIONS, Decision
from ..adaptation.head import Source
from ..bundle.calibration import build_memory, fit_decision
from ..config import Config
from ..errors import TrainingError
from ..network.network import Network
from ..source import run as runs
from ..source.run import (
    check_same_data,
    fingerprint,
    labels,
    load_training_data,
    read,
    trained_network,
)


def find_runs(folders: Sequence[Path], source: Sequence[str], num_seeds: int) -> dict[int, Path]:
    """Match finished runs with seeds.

    Args:
        folders: of ``nnpm train``.
        source: corpora that they must have learnt from, in any order.
        num_seeds: seeds 0, 1, ... wanted.

    Raises:
        TrainingError: if a folder is no finished run, a seed has none or two, or the recipes
            differ.
    """
    found: dict[int, Path] = {}
    recipes: list[Config] = []
    for folder in folders:
        request = runs.read(folder)
        runs.require_finished(folder)
        if sorted(request.corpora) != sorted(source) or request.seed >= num_seeds:
            continue
        if request.seed in found:
            raise TrainingError(
                f"{found[request.seed]} and {folder} are both of seed {request.seed}"
            )
        found[request.seed] = folder
        recipes.append(request.config)
    if missing := sorted(set(range(num_seeds)) - set(found)):
        raise TrainingError(
            f"{len(found)} of the {len(folders)} runs are of {' and '.join(source)} and of a seed "
            f"below {num_seeds}; none is of seed {', '.join(map(str, missing))}"
        )
    if any(recipe != recipes[0] for recipe in recipes):
        raise TrainingError("the runs are not of one recipe")
    return found


def train_runs(
    out: Path, source: Sequence[str], num_seeds: int, data: Path, recipe: Config, cache: Path
) -> dict[int, Path]:
    """Train one run per seed; those that are there go on, or are taken as they are.

    Raises:
        TrainingError: if a folder holds another run.
        CorpusError: if a corpus cannot be read.
    """
    found = {}
    for seed in range(num_seeds):
        folder = out / f"{'+'.join(source)}-{seed}"
        request = runs.Request(corpora=tuple(source), data=data.resolve(), seed=seed, config=recipe)
        begun = (folder / "run.json").exists()
        if begun and runs.read(folder).config != recipe:
            raise TrainingError(f"{folder} was trained with another recipe; choose another --out")
        if not runs.is_finished(folder):
            device = runs.choose_device("cpu")
            runs.train(folder, request, cache=cache, device=device, resume=begun)
        found[seed] = folder
    return found


_VERSION = 1  # raised when memory or decision are made otherwise


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A source network with memory and decision, as ``nnpm export`` makes them.

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
        return Source.from_memory(self.memory)


def load_base(run: Path, data: Path, cache: Path) -> Base:
    """Load a finished run; memory and decision, which take a pass over the source, are cached.

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
        material = load_training_data(request, cache)
        check_same_data(run, material)
        train = material.split.train
        memory = build_memory(network, train, material.clips(train))
        _write(path, memory, fit_decision(network, memory, material, request.seed))
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
