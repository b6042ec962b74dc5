"""``nnpm benchmark``: plan what is missing, do it, write all tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ...service.files import require_place
from ...service.inference.card import CORE_EMOTIONS
from ..adaptation.config import AdaptConfig
from ..adaptation.methods import METHODS
from ..config import Config
from ..corpora import Utterance, load
from ..errors import TrainingError
from ..source.run import fingerprint
from .cases import Protocol, core_clips
from .networks import find_runs, train_runs
from .plan import TABLES, Unit, plan
from .report import write_report
from .results import Results, Row, code, key, provenance
from .tables import Table
from .work import Place, perform_all


@dataclass(frozen=True, slots=True)
class Request:
    """What ``nnpm benchmark`` is to do.

    Attributes:
        data: holds one folder per corpus.
        protocol: source corpora and means.
        targets: corpora; empty for the protocol's.
        methods: by name.
        tables: in :data:`nnpm.training.benchmark.plan.TABLES`.
        seeds: how many; 0, 1, ... are taken.
        runs: finished runs to take; empty: they are trained below ``out``.
        recipe: of the runs that are trained.
        config: of the adaptation.
        out: folder of the results.
        cache: of decoded clips and features.
        jobs: processes.
    """

    data: Path
    protocol: Protocol
    targets: tuple[str, ...]
    methods: tuple[str, ...]
    tables: tuple[str, ...]
    seeds: int
    runs: tuple[Path, ...]
    recipe: Config
    config: AdaptConfig
    out: Path
    cache: Path
    jobs: int


def benchmark(request: Request) -> list[Table]:
    """Compute the rows that are missing, and write all tables anew.

    Returns:
        The tables.

    Raises:
        TrainingError: if the request cannot be carried out.
        CorpusError: if a corpus cannot be read.
    """
    _check(request)
    names = request.targets or request.protocol.targets
    targets = {name: load(name, request.data) for name in names}
    _check_targets(targets)
    results = Results(request.out / "results.jsonl")
    results.read()
    request.out.mkdir(parents=True, exist_ok=True)
    request.cache.mkdir(parents=True, exist_ok=True)
    runs = _runs(request)
    networks = {seed: (run, fingerprint(run)) for seed, run in sorted(runs.items())}

    def planned(tables: tuple[str, ...], methods: tuple[str, ...]) -> list[Unit]:
        return plan(request.protocol, targets, networks, request.config, tables, methods)

    done = {key(row) for row in results.read()}
    units = [unit.without(done) for unit in planned(request.tables, request.methods)]
    _work([unit for unit in units if unit.trials], request, results)
    # also rows of earlier calls, if they are of these networks and this configuration
    wanted = {row for unit in planned(TABLES, tuple(METHODS)) for row in unit.row_keys()}
    rows = list({key(row): row for row in results.read() if key(row) in wanted}.values())
    facts = provenance(_command(request)) | {"code": _code_of(rows)}
    return write_report(request.out, rows, request.protocol, facts)


def _code_of(rows: Sequence[Row]) -> str:
    """Rows stay when the code changes; then the tables must say so."""
    other = sum(row.get("code") != code() for row in rows)
    mixed = f"; {other} of the {len(rows)} rows were made by other code" if other else ""
    return f"{code()}{mixed}"


def _command(request: Request) -> str:
    """The command to type, without the paths of this machine."""
    targets = f"--targets {' '.join(request.targets)} " if request.targets else ""
    return (
        f"nnpm benchmark --data DIR --protocol {request.protocol.name} {targets}"
        f"--methods {' '.join(request.methods)} --tables {' '.join(request.tables)} "
        f"--seeds {request.seeds} --out FOLDER"
    )


def _work(units: list[Unit], request: Request, results: Results) -> None:
    total = sum(len(unit.trials) for unit in units)
    place = Place(request.data, request.cache)
    with tqdm(total=total, desc="benchmark", unit="trial", dynamic_ncols=True, disable=None) as bar:
        for rows in perform_all(units, place, request.jobs):
            results.append(rows)
            bar.update(len(rows))


def _runs(request: Request) -> dict[int, Path]:
    source = request.protocol.source
    if request.runs:
        return find_runs(request.runs, source, request.seeds)
    out = request.out / "runs"
    return train_runs(out, source, request.seeds, request.data, request.recipe, request.cache)


def _check(request: Request) -> None:
    """Check the request before any work."""
    require_place(request.out / "results.jsonl")
    for asked, known, what in (
        (request.methods, tuple(METHODS), "method"),
        (request.tables, TABLES, "table"),
    ):
        if unknown := [name for name in asked if name not in known]:
            raise TrainingError(
                f"there is no {what} {', '.join(unknown)}; choose among {', '.join(known)}"
            )
        if len(set(asked)) < len(asked):
            raise TrainingError(f"--{what}s names one twice: {' '.join(asked)}")
    if request.seeds < 1 or request.jobs < 1:
        raise TrainingError(
            f"--seeds {request.seeds} and --jobs {request.jobs}: each must be at least 1"
        )
    if both := sorted(set(request.targets) & set(request.protocol.source)):
        raise TrainingError(
            f"{', '.join(both)} cannot be a target: {request.protocol.name} learns from its labels"
        )
    if len(set(request.targets)) < len(request.targets):
        raise TrainingError(f"--targets names one twice: {' '.join(request.targets)}")


def _check_targets(targets: dict[str, list[Utterance]]) -> None:
    for name, utterances in targets.items():
        if not len(core_clips(utterances)):
            raise TrainingError(
                f"{name} has 0 clips of {', '.join(CORE_EMOTIONS)} among {len(utterances)}: "
                "nothing can be scored"
            )
