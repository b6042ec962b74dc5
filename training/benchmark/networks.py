"""The source networks of a benchmark: found among finished runs, or trained.

:class:`Base` is a source network ready to be adapted: its bundle.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...service.inference import bundle as bundles
from ...service.inference.bundle import Bundle, Memory
from ...service.inference.card import CORE_EMOTIONS, Decision
from ...service.inference.head import Head
from ..bundle.export import export
from ..config import Config
from ..errors import TrainingError
from ..source import run as runs
from ..source.run import fingerprint, labels


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


_VERSION = 2  # raised when a bundle is made otherwise


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A source network as its bundle has it.

    Attributes:
        bundle: of the run.
        head: of the bundle.
        memory: of the bundle, as it stores it.
        fingerprint: of the run.
    """

    bundle: Bundle
    head: Head
    memory: Memory
    fingerprint: str

    @classmethod
    def of(cls, bundle: Bundle, fingerprint: str) -> "Base":
        """Read head and memory of a bundle."""
        return cls(bundle, bundle.head(), bundle.memory(), fingerprint)

    @property
    def labels(self) -> tuple[str, ...]:
        """Emotions in the order of the logits."""
        return self.bundle.labels

    @property
    def decision(self) -> Decision:
        """Of the bundle, fitted on the source's validation speakers."""
        return self.bundle.card.decision


def load_base(run: Path, data: Path, cache: Path) -> Base:
    """Load a finished run as a bundle; the export, which takes minutes, is cached.

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
    if missing := set(CORE_EMOTIONS) - set(labels(run)):
        raise TrainingError(
            f"{run} does not know {', '.join(sorted(missing))}, and the tables are of "
            f"{', '.join(CORE_EMOTIONS)}"
        )
    name = hashlib.sha256(f"{_VERSION} {digest}".encode()).hexdigest()[:16]
    path = cache / f"benchmark-bundle-{name}"
    if not path.exists():
        export(run, path, cache=cache, data=data)
    return Base.of(bundles.load(path), digest)
