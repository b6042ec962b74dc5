"""The work: units to rows, in one process or in several."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from torch import Tensor

from training.adaptation.command import one_torch_thread
from training.benchmark.base import Base, load_base
from training.benchmark.hearing import hear_corpus
from training.benchmark.plan import STRANGE, Trial, Unit
from training.benchmark.provenance import code
from training.benchmark.results import Row
from training.benchmark.strange_targets import Strange, hear_strange, run_strange, sounds
from training.benchmark.trial import Subject, run_trial
from training.clips import load_clips


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are.

    Attributes:
        data: holds one folder per corpus.
        cache: of decoded clips and of features.
    """

    data: Path
    cache: Path


def perform_all(units: Sequence[Unit], place: Place, jobs: int) -> Iterator[list[Row]]:
    """Do all units; gives rows as they are there.

    Args:
        units: of the plan.
        place: where things are.
        jobs: processes; one works here, more are started anew.
    """
    if jobs == 1:
        for unit in units:
            for row in perform(unit, place):
                yield [row]
        return
    with _one_blas_thread():
        pool = ProcessPoolExecutor(
            jobs,
            mp_context=get_context("spawn"),  # a fork of a process with torch's threads may hang
            initializer=signal.signal,  # an interrupt is for the parent to tell of, in one line
            initargs=(signal.SIGINT, signal.SIG_IGN),
        )
        try:
            for future in as_completed([pool.submit(_perform, unit, place) for unit in units]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def perform(unit: Unit, place: Place) -> Iterator[Row]:
    """Do the trials of one unit, in one thread."""
    with one_torch_thread():
        base = _base(unit.run, place)
        strange = _strange(unit, base, place) if unit.table == STRANGE else None
        for trial in unit.trials:
            if strange is not None:
                figures = run_strange(base, strange, trial.method, trial.config, unit.seed)
            else:
                subject = _subject(unit, trial, base, place)
                figures = run_trial(
                    base, subject, trial.case, trial.method, trial.config, unit.seed
                )
            yield {
                "table": unit.table,
                "target": unit.target,
                "condition": trial.case.condition,
                "method": trial.method,
                "variant": trial.variant,
                "seed": unit.seed,
                "fingerprint": trial.fingerprint,
                "code": code(),
                **figures,
            }


def _strange(unit: Unit, base: Base, place: Place) -> Strange:
    clips = list(load_clips(unit.utterances, place.cache))
    found = sounds(unit.target, clips, unit.seed)
    return hear_strange(base, found, unit.num_views, unit.seed)


def _perform(unit: Unit, place: Place) -> list[Row]:
    return list(perform(unit, place))


@lru_cache(maxsize=1)
def _base(run: Path, place: Place) -> Base:
    return load_base(run, place.data, place.cache)


_heard: dict[tuple[object, ...], Tensor] = {}
"""What was heard last: trials of one unit come one after the other."""


def _subject(unit: Unit, trial: Trial, base: Base, place: Place) -> Subject:
    asked = (
        base.fingerprint,
        unit.utterances[0].path,
        trial.case.degradation,
        unit.num_views,
        unit.seed,
    )
    if asked not in _heard:
        _heard.clear()
        _heard[asked] = hear_corpus(
            base, unit.utterances, trial.case.degradation, unit.num_views, unit.seed, place.cache
        )
    return Subject(unit.utterances, _heard[asked])


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """For processes that are started inside: they share the cores as they are."""
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
