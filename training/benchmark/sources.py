"""The source networks of a benchmark: found among finished runs, or trained."""

from collections.abc import Sequence
from pathlib import Path

from training import run as runs
from training.config import Config
from training.errors import TrainingError


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
