"""``nnpm benchmark``: plan the rows that are missing, compute them, write all tables."""

import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from ...service.files import require_place
from ...service.inference import bundle as bundles
from ...service.inference.bundle import Bundle
from ...service.inference.card import CORE_EMOTIONS
from ...service.inference.errors import printable
from ..adaptation.config import AdaptConfig
from ..adaptation.methods import METHODS, PLUGINS
from ..adaptation.outcome import Base
from ..errors import TrainingError
from .cases import PROTOCOLS, Protocol
from .features import Subject, features_path, load_subject, load_target
from .plan import TABLES, Unit, plan
from .report import write_report
from .results import Results, Row, code, key, provenance
from .tables import Table
from .trial import run_trial

_S_PER_CLIP = 0.015  # embedding three seconds of speech on one core
_S_PER_STEP = 0.02  # a step of adaptation on one core


@dataclass(frozen=True, slots=True)
class Request:
    """What ``nnpm benchmark`` is to do.

    Attributes:
        data: holds one folder per corpus.
        bundles: one per seed, of one protocol.
        runs: finished runs that are exported first, to bundles below ``out``.
        protocol: a name in :data:`nnpm.training.benchmark.cases.PROTOCOLS`; empty for the one whose
            source corpora are those of the bundles.
        development: take the protocol's development targets.
        targets: corpora; empty for the protocol's.
        methods: by name.
        tables: in :data:`nnpm.training.benchmark.plan.TABLES`.
        config: of the adaptation.
        out: folder of the results.
        cache: of decoded clips and features.
        jobs: processes.
    """

    data: Path
    bundles: tuple[Path, ...]
    runs: tuple[Path, ...]
    protocol: str
    development: bool
    targets: tuple[str, ...]
    methods: tuple[str, ...]
    tables: tuple[str, ...]
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
        BundleError: if a bundle cannot be read.
    """
    check(request, TABLES)
    results = Results(request.out / "results.jsonl")
    done = {key(row) for row in results.read()}
    networks = open_bundles(request)
    protocol = find_protocol(request.protocol, networks)
    chosen = request.targets or (protocol.development if request.development else protocol.targets)
    targets = [
        dict(
            load_target(name, request.data, one, uncurated=name in protocol.uncurated)
            for name in chosen
        )
        for one in networks
    ]
    digests = [(seed_of(one), one.card.files["model.onnx"]) for one in networks]

    def planned(tables: Sequence[str], methods: Collection[str]) -> list[Unit]:
        return plan(protocol, targets, digests, request.config, tables, methods)

    units = [unit.without(done) for unit in planned(request.tables, request.methods)]
    compute(units, networks, request, results)
    # also rows of earlier calls, if they are of these bundles and this configuration
    wanted = {
        row for unit in planned(TABLES, {*METHODS, *request.methods}) for row in unit.row_keys()
    }
    rows = list({key(row): row for row in results.read() if key(row) in wanted}.values())
    facts = provenance(_command(request, protocol)) | {"code": _code_of(rows)}
    return write_report(request.out, rows, protocol, facts)


def check(request: Request, tables: Sequence[str]) -> None:
    """Check a request before any work.

    Args:
        request: of the user.
        tables: that there are.

    Raises:
        TrainingError: if it cannot be carried out.
    """
    require_place(request.out / "results.jsonl")
    methods = [name for name in request.methods if PLUGINS.find(name)]
    for asked, known, what in (
        (methods, (*PLUGINS.names(), *methods), "method"),
        (request.tables, tuple(tables), "table"),
        ((request.protocol,) if request.protocol else (), tuple(PROTOCOLS), "protocol"),
    ):
        if unknown := [name for name in asked if name not in known]:
            raise TrainingError(
                f"there is no {what} {', '.join(unknown)}; choose among {', '.join(known)}"
            )
        if len(set(asked)) < len(asked):
            raise TrainingError(f"--{what}s names one twice: {' '.join(asked)}")
    if len(set(request.targets)) < len(request.targets):
        raise TrainingError(f"--targets names one twice: {' '.join(request.targets)}")
    if request.jobs < 1:
        raise TrainingError(f"--jobs is {request.jobs}; at least 1 is required")
    if not request.bundles and not request.runs:
        raise TrainingError("--bundle names 0 bundles; name one, or finished runs with --runs")


def open_bundles(request: Request) -> list[Bundle]:
    """Export the runs that are not exported yet, and open all bundles, in order of their seeds.

    Raises:
        TrainingError: if a run cannot be exported, or a bundle is of the first generation or lacks
            one of the four emotions.
        BundleError: if a bundle cannot be read.
    """
    paths = list(request.bundles)
    for run in request.runs:
        path = request.out / "bundles" / run.resolve().name
        if not path.exists():
            from ..bundle.export import export  # needs torch

            export(run, path, cache=request.cache, data=request.data)
        paths.append(path)
    found = [bundles.load(path) for path in paths]
    for bundle in found:
        if bundle.card.schema_version < 2:
            raise TrainingError(
                f"{bundle.path} is of the first generation, which cannot be adapted"
            )
        if missing := set(CORE_EMOTIONS) - set(bundle.labels):
            raise TrainingError(
                f"{bundle.path} does not know {', '.join(sorted(missing))}, and the tables are of "
                f"{', '.join(CORE_EMOTIONS)}"
            )
    return sorted(found, key=seed_of)


def seed_of(bundle: Bundle) -> int:
    """The seed of a bundle's training, which adaptation takes, too."""
    return int(bundle.card.training.get("seed", 0))


def source_of(bundle: Bundle) -> set[str]:
    """The corpora that a bundle has learnt from."""
    return {corpus["name"] for corpus in bundle.card.training.get("corpora", ())}


def find_protocol(name: str, networks: Sequence[Bundle]) -> Protocol:
    """The protocol of some bundles.

    Args:
        name: of the protocol, which the bundles must fit; empty to find it.
        networks: the bundles.

    Raises:
        TrainingError: if they do not fit it, none fits, or two have one seed.
    """
    source = source_of(networks[0])
    different = [one for one in networks if source_of(one) != source]
    matching = [one for one in PROTOCOLS.values() if set(one.source) == source]
    learnt = ", ".join(sorted(source)) or "no corpus that its card names"
    if different:
        raise TrainingError(
            f"{different[0].path} has learnt from other corpora than {networks[0].path}: give "
            "bundles of one protocol"
        )
    if len({seed_of(one) for one in networks}) < len(networks):
        raise TrainingError(
            f"the {len(networks)} bundles have the seeds "
            f"{', '.join(str(seed_of(one)) for one in networks)}; each must be there once"
        )
    if name and (not matching or matching[0].name != name):
        raise TrainingError(
            f"{networks[0].path} has learnt from {learnt}; {name} is of "
            f"{', '.join(PROTOCOLS[name].source)}"
        )
    return matching[0] if matching else Protocol("other", tuple(sorted(source)), ("hindi",))


def compute(
    units: Sequence[Unit], networks: Sequence[Bundle], request: Request, results: Results
) -> None:
    """Embed the clips, run all trials, and store their rows as they are there.

    Prints first how much there is to do.

    Args:
        units: of the plan, without what is done.
        networks: the bundles that the units number.
        request: folders and number of processes.
        results: where the rows go.
    """
    units = [unit for unit in units if unit.trials]
    request.out.mkdir(parents=True, exist_ok=True)
    request.cache.mkdir(parents=True, exist_ok=True)
    paths = [bundle.path for bundle in networks]
    missing = {
        path: (unit, degradation)
        for unit in units
        for degradation in sorted({trial.case.degradation for trial in unit.trials})
        if not (path := _path(unit, networks[unit.network], degradation, request.cache)).exists()
    }
    trials = [trial for unit in units for trial in unit.trials]
    if trials:
        clips = sum(len(unit.utterances) * (1 + unit.num_views) for unit, _ in missing.values())
        steps = sum(
            len(trial.case.parts) * trial.config.steps * trial.config.heads
            for trial in trials
            if PLUGINS.find(trial.method).trains
        )
        cores = os.cpu_count() or 1
        minutes = (clips * _S_PER_CLIP / cores + steps * _S_PER_STEP / request.jobs) / 60
        print(  # noqa: T201 - how long it takes
            f"nnpm benchmark: {len(trials)} adaptations, {clips} clips to embed; about "
            f"{max(1, round(minutes))} min",
            file=sys.stderr,
        )
    for unit, degradation in missing.values():
        bundle = networks[unit.network]
        load_subject(bundle, unit.utterances, degradation, unit.num_views, request.cache)
    with tqdm(total=len(trials), desc="benchmark", unit="trial", disable=None) as bar:
        for rows in _perform_all(units, paths, request.cache, request.jobs):
            results.append(rows)
            bar.update(len(rows))


def _path(unit: Unit, bundle: Bundle, degradation: str, cache: Path) -> Path:
    return features_path(bundle, unit.utterances, degradation, unit.num_views, cache)


def _perform_all(
    units: Sequence[Unit], paths: Sequence[Path], cache: Path, jobs: int
) -> Iterator[list[Row]]:
    """Do all units; gives rows as they are there."""
    if jobs == 1:
        for unit in units:
            for row in _perform(unit, paths[unit.network], cache):
                yield [row]
        return
    with _one_blas_thread():
        pool = ProcessPoolExecutor(
            jobs,
            mp_context=get_context("spawn"),  # a fork of a process with threads may hang
            initializer=signal.signal,  # the parent reports an interrupt, in one line
            initargs=(signal.SIGINT, signal.SIG_IGN),
        )
        try:
            waiting = [pool.submit(_rows, unit, paths[unit.network], cache) for unit in units]
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _rows(unit: Unit, path: Path, cache: Path) -> list[Row]:
    return list(_perform(unit, path, cache))


def _perform(unit: Unit, path: Path, cache: Path) -> Iterator[Row]:
    """Do the trials of one unit."""
    bundle = _bundle(path)
    base = _base(path)
    subjects: dict[str, Subject] = {}
    for trial in unit.trials:
        degradation = trial.case.degradation
        if degradation not in subjects:
            subjects = {
                degradation: load_subject(
                    bundle, unit.utterances, degradation, unit.num_views, cache
                )
            }
        yield {
            "table": unit.table,
            "target": unit.target,
            "condition": trial.case.condition,
            "method": trial.method,
            "variant": trial.variant,
            "seed": unit.seed,
            "fingerprint": trial.fingerprint,
            "code": code(),
            **run_trial(
                base, subjects[degradation], trial.case, trial.method, trial.config, unit.seed
            ),
        }


@lru_cache(maxsize=4)
def _bundle(path: Path) -> Bundle:
    return bundles.load(path)


@lru_cache(maxsize=4)
def _base(path: Path) -> Base:
    return Base.of(_bundle(path))


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """For processes started inside: each computes in one thread, so that they share the cores."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _code_of(rows: Sequence[Row]) -> str:
    """Rows stay when the code changes; then the tables must say so."""
    other = sum(row.get("code") != code() for row in rows)
    mixed = f"; {other} of the {len(rows)} rows were made by other code" if other else ""
    return f"{code()}{mixed}"


def _command(request: Request, protocol: Protocol) -> str:
    """The command to type, without the paths of this machine."""
    paths = [path.resolve() for path in (*request.bundles, *request.runs)]
    given = [printable(f"{path.parent.name}/{path.name}") for path in paths]
    chosen = " --development" if request.development else ""
    if request.targets:
        chosen = f" --targets {' '.join(request.targets)}"
    return (
        f"nnpm benchmark --bundle {' '.join(given)} --data DIR --protocol {protocol.name}{chosen} "
        f"--methods {' '.join(request.methods)} --tables {' '.join(request.tables)} --out FOLDER"
    )
