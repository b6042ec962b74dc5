"""The work of a benchmark: units of the plan to rows, in one process or in several.

The pooled features of a corpus are computed once per network and cached.
"""

import hashlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...service.files import replacing
from ...service.inference.audio.speech import assess
from ...service.inference.audio.waveform import SAMPLE_RATE_HZ, Waveform
from ..adaptation.config import AdaptConfig
from ..adaptation.evidence import collect_evidence
from ..adaptation.features import Encoder
from ..adaptation.head import Source, Target
from ..adaptation.train import adapt_head
from ..corpora import Utterance
from ..data.clips import load_clips
from .cases import DEGRADATIONS, make_sounds
from .networks import Base, load_base
from .plan import NON_SPEECH, Trial, Unit
from .results import Row, code
from .trial import Subject, run_trial

Floats = NDArray[np.float32]

_VERSION = 2  # raised when the features of a clip change
_LONGEST_S = 10


def extract_corpus(
    base: Base,
    utterances: Sequence[Utterance],
    degradation: str,
    num_views: int,
    seed: int,
    cache: Path,
) -> Floats:
    """Pool all clips, trimmed as for training, their first ten seconds.

    Args:
        base: gives the network.
        utterances: of the corpus.
        degradation: a name in :data:`nnpm.training.benchmark.cases.DEGRADATIONS`.
        num_views: spectral augmentations of each clip.
        seed: of the views.
        cache: folder for decoded clips and these features.

    Returns:
        Shape ``(1 + num_views, clips, D)``; the first is each clip as recorded, or degraded.
    """
    clips = load_clips(utterances, cache)
    parts = [_VERSION, base.fingerprint, clips.stem.name, degradation, num_views, seed]
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    path = cache / f"benchmark-features-{name}.npy"
    if not path.exists():
        change = DEGRADATIONS[degradation]
        bar = tqdm(clips, desc="features", unit="clip", leave=False, disable=None)
        pooled = pool_clips(base, map(change, bar), num_views, seed)
        with replacing(path) as temporary, temporary.open("xb") as file:
            np.save(file, pooled)
    features: Floats = np.load(path)
    return features


def pool_clips(
    base: Base, clips: Iterable[NDArray[np.float32]], num_views: int, seed: int
) -> Floats:
    """Pool clips in one thread; shapes as in :func:`extract_corpus`."""
    encoder = Encoder(base.bundle.path / "model.onnx", num_views, seed)
    longest = _LONGEST_S * SAMPLE_RATE_HZ
    return np.stack([encoder(clip[:longest]) for clip in clips], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class NonSpeech:
    """Sounds that are no speech, in the features of one network.

    Attributes:
        sounds: how many there were.
        pooled: of those taken for speech, shape ``(1 + views, accepted, D)``.
    """

    sounds: int
    pooled: Floats


def extract_non_speech(base: Base, found: Sequence[Floats], num_views: int, seed: int) -> NonSpeech:
    """Leave out what the service would not take for speech, and pool the rest."""
    accepted = [sound for sound in found if assess(Waveform(sound)).has_speech]
    if not accepted:
        return NonSpeech(
            len(found), np.zeros((1 + num_views, 0, base.memory.features.shape[1]), np.float32)
        )
    return NonSpeech(len(found), pool_clips(base, accepted, num_views, seed))


def run_non_speech(
    base: Base, non_speech: NonSpeech, method: str, config: AdaptConfig, seed: int
) -> dict[str, Any]:
    """Adapt to sounds as ``nnpm adapt`` would.

    Returns:
        How many were taken for speech, and the verdict: ``refused`` if they were too few.
    """
    pooled = non_speech.pooled[: 1 + config.views]
    row: dict[str, Any] = {"clips": non_speech.sounds, "accepted": pooled.shape[1]}
    if pooled.shape[1] < config.min_clips:
        return {**row, "verdict": ["refused"], "reasons": [[]], "evidence": [{}]}
    target = Target(pooled[0], pooled[1:])
    source, temperature = (
        Source.from_memory(base.memory, config.most_slots),
        base.decision.temperature,
    )
    head = adapt_head(base.head, source, target, method, config, seed, temperature=temperature)
    evidence = collect_evidence(
        base.head, head, source, target, base.labels, temperature=temperature
    )
    return {
        **row,
        "verdict": [evidence.verdict],
        "reasons": [evidence.reasons],
        "evidence": [evidence.figures],
    }


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of a benchmark.

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
            initializer=signal.signal,  # the parent reports an interrupt, in one line
            initargs=(signal.SIGINT, signal.SIG_IGN),
        )
        try:
            for future in as_completed([pool.submit(_perform, unit, place) for unit in units]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def perform(unit: Unit, place: Place) -> Iterator[Row]:
    """Do the trials of one unit."""
    base = _base(unit.run, place)
    non_speech = _non_speech(unit, base, place) if unit.table == NON_SPEECH else None
    for trial in unit.trials:
        if non_speech is not None:
            figures = run_non_speech(base, non_speech, trial.method, trial.config, unit.seed)
        else:
            subject = _subject(unit, trial, base, place)
            figures = run_trial(base, subject, trial.case, trial.method, trial.config, unit.seed)
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


def _non_speech(unit: Unit, base: Base, place: Place) -> NonSpeech:
    clips = list(load_clips(unit.utterances, place.cache))
    found = make_sounds(unit.target, clips, unit.seed)
    return extract_non_speech(base, found, unit.num_views, unit.seed)


def _perform(unit: Unit, place: Place) -> list[Row]:
    return list(perform(unit, place))


@lru_cache(maxsize=1)
def _base(run: Path, place: Place) -> Base:
    return load_base(run, place.data, place.cache)


_last_features: dict[tuple[object, ...], Floats] = {}
"""The features used last: trials of one unit follow one another."""


def _subject(unit: Unit, trial: Trial, base: Base, place: Place) -> Subject:
    wanted = (
        base.fingerprint,
        unit.utterances[0].path,
        trial.case.degradation,
        unit.num_views,
        unit.seed,
    )
    if wanted not in _last_features:
        _last_features.clear()
        _last_features[wanted] = extract_corpus(
            base, unit.utterances, trial.case.degradation, unit.num_views, unit.seed, place.cache
        )
    return Subject(unit.utterances, _last_features[wanted])


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
