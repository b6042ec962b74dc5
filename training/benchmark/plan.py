"""The plan of a benchmark: every trial, and the switches of nnpm that the ablations turn."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..adaptation.config import AdaptConfig
from ..adaptation.methods import METHODS
from ..corpora import Utterance
from .cases import CASES, HELD_OUT, STUDIED, Case, Protocol

TABLES = tuple(CASES)
"""What ``--tables`` takes, besides ``all`` and ``estimator``."""

WHOLE = "whole method"

ABLATIONS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no multilabel loss": {"nnpm": {"multilabel_weight": 0.0}},
    "no cross-entropy on pseudo labels": {"nnpm": {"pseudo_label_weight": 0.0}},
    "the classifier's pseudo labels": {"nnpm": {"mixture": False}},
    "no voices": {"mixture": {"voices": 0}},
    "equal shares at the start": {"prior": {"estimate": False}},
    "no consistency check": {"nnpm": {"consistency": 0.0}},
    "no confidence weights": {"nnpm": {"confidence_weights": False}},
    "all slots reliable": {"nnpm": {"reliable_share": 0.0}},
    "all negatives": {"nnpm": {"negatives": 1_000_000}},
    "no ramp": {"ramp_steps": 0},
    "source statistics": {"statistics": {"adapt": False}},
    "target statistics all the way": {"statistics": {"mean_clips": 0.0, "deviation_clips": 0.0}},
    "target statistics that ignore the prior": {"statistics": {"prior_aware": 0.0}},
    "no replay": {"replay_weight": 0.0},
    "three heads": {"heads": 3},
    "no calibration by the estimate": {"calibrate": False},
}
"""What each row changes in the configuration of an adaptation."""


def changed(config: AdaptConfig, overrides: dict[str, Any]) -> AdaptConfig:
    """A configuration with some fields replaced; sections are merged field by field.

    Examples:
        >>> changed(AdaptConfig(), {"steps": 5, "coral": {"weight": 2.0}}).coral.weight
        2.0
    """
    fields = config.model_dump()
    for name, value in overrides.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    return AdaptConfig.model_validate(fields)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One method, in one configuration, on one case.

    Attributes:
        case: of the target.
        method: by name.
        variant: which ablation; empty elsewhere.
        config: of the adaptation.
        fingerprint: of all that the figures depend on, except the code.
    """

    case: Case
    method: str
    variant: str
    config: AdaptConfig
    fingerprint: str


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """The trials of one table on one target with one bundle: the work of one process at a time.

    Attributes:
        table: in :data:`TABLES`, or ``estimator``.
        target: as the tables name it.
        network: number of the bundle.
        seed: of the bundle and of the adaptation.
        utterances: of the target.
        num_views: of every clip that are computed; a trial may look at fewer.
        trials: to be done.
    """

    table: str
    target: str
    network: int
    seed: int
    utterances: Sequence[Utterance]
    num_views: int
    trials: tuple[Trial, ...]

    def row_keys(self) -> list[tuple[object, ...]]:
        """The keys (:data:`~nnpm.training.benchmark.results.KEY`) of the rows to come."""
        return [
            (
                self.table,
                self.target,
                trial.case.condition,
                trial.method,
                trial.variant,
                self.seed,
                trial.fingerprint,
            )
            for trial in self.trials
        ]

    def without(self, done: set[tuple[object, ...]]) -> "Unit":
        """What is left to do."""
        pairs = zip(self.trials, self.row_keys(), strict=True)
        return replace(self, trials=tuple(trial for trial, key in pairs if key not in done))


def plan(
    protocol: Protocol,
    targets: Sequence[Mapping[str, Sequence[Utterance]]],
    networks: Sequence[tuple[int, str]],
    config: AdaptConfig,
    tables: Sequence[str],
    methods: Collection[str],
) -> list[Unit]:
    """List the trials, table by table.

    Args:
        protocol: says which targets are special.
        targets: clips by name, for every network: which speakers are held out depends on it.
        networks: seed and digest of each.
        config: of the adaptation.
        tables: in :data:`TABLES`.
        methods: by name; the studies have some of these, the ablations nnpm.
    """
    units = []
    for table in tables:
        contenders = _contenders(table, methods, config)
        for number, (seed, digest) in enumerate(networks):
            for target, utterances in targets[number].items():
                rng = np.random.default_rng([seed, TABLES.index(table)])
                cases = CASES[table](target.removesuffix(HELD_OUT), utterances, protocol, rng)
                trials = make_trials(digest, utterances, cases, contenders)
                units.append(Unit(table, target, number, seed, utterances, config.views, trials))
    return units


def make_trials(
    network: str,
    utterances: Sequence[Utterance],
    cases: Sequence[Case],
    contenders: Sequence[tuple[str, str, AdaptConfig]],
) -> tuple[Trial, ...]:
    """Every contender (method, variant, configuration) on every case."""
    clips = repr([(u.path.name, u.speaker, u.emotion) for u in utterances])
    return tuple(
        Trial(case, method, variant, config, _digest(network, clips, case, method, config))
        for case in cases
        for method, variant, config in contenders
    )


def _contenders(
    table: str, methods: Collection[str], config: AdaptConfig
) -> list[tuple[str, str, AdaptConfig]]:
    if table == "ablations":
        if "nnpm" not in methods:
            return []
        return [("nnpm", name, changed(config, change)) for name, change in ABLATIONS.items()]
    if table in ("main", "inductive"):
        return [(method, "", config) for method in methods]
    return [(method, "", config) for method in methods if method in STUDIED]


def _digest(network: str, clips: str, case: Case, method: str, config: AdaptConfig) -> str:
    """Of network, clips and configuration, without the settings of other methods."""
    others = (set(METHODS) - {method}) | {"full"}
    places = [(p.adapt.tolist(), p.score.tolist(), p.labelled.tolist()) for p in case.parts]
    parts = [network, clips, case.degradation, places, config.model_dump_json(exclude=others)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
