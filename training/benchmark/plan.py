"""The plan of a benchmark: every trial, and the switches of nnpm that the ablations turn off."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..adaptation.config import AdaptConfig
from ..adaptation.methods import METHODS
from ..corpora import Utterance
from .cases import CASES, KINDS, STUDIED, Case, Protocol

WHOLE = "whole method"

ABLATIONS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no multilabel loss": {"nnpm": {"multilabel_weight": 0.0}},
    "no pseudo labels": {"nnpm": {"pseudo_label_weight": 0.0}},
    "no information maximisation": {"nnpm": {"information_weight": 0.0}},
    "no memory vote in the pseudo labels": {"nnpm": {"vote_share": 0.0}},
    "no centring": {"nnpm": {"centring": False}},
    "no balance": {"nnpm": {"balance": 0.0}},
    "no smoothing": {"nnpm": {"smoothing": 0.0}},
    "no consistency check": {"nnpm": {"consistency": 0.0}},
    "no confidence weights": {"nnpm": {"confidence_weights": False}},
    "all negatives": {"nnpm": {"hard_negative_share": 1.0}},
    "memory not updated": {"nnpm": {"memory_momentum": 1.0}},
    "no ramp": {"ramp_steps": 0},
    "no views": {"views": 0},
    "no target statistics": {"target_statistics": 0.0},
    "target statistics all the way": {"target_statistics": 1.0},
    "no replay": {"replay_weight": 0.0},
    "no anchor": {"anchor": False},
    "with dropout": {"dropout": True},
    "no memory vote in the answer": {"answer_vote": False},
    "with prior correction": {"prior_correction": 0.5},
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


NON_SPEECH = "strange"
"""The table of sounds that are no speech, by the name that ``--tables`` has for it."""

TABLES = (*CASES, NON_SPEECH)
"""What ``--tables`` takes."""


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
    """The trials of one table on one target with one seed: the work of one process at a time.

    Attributes:
        table: in :data:`TABLES`.
        target: corpus, or a kind of sound that is no speech.
        seed: of network and adaptation.
        run: folder of the network.
        utterances: of the target; of the corpus that babble is made of.
        num_views: of every clip that are computed; a trial may look at fewer.
        trials: to be done.
    """

    table: str
    target: str
    seed: int
    run: Path
    utterances: Sequence[Utterance]
    num_views: int
    trials: tuple[Trial, ...]

    def row_keys(self) -> list[tuple[object, ...]]:
        """The keys (:data:`~nnpm.training.benchmark.results.KEY`) of the rows to come."""
        return [
            (
                self.table,
                self.target,
                t.case.condition,
                t.method,
                t.variant,
                self.seed,
                t.fingerprint,
            )
            for t in self.trials
        ]

    def without(self, done: set[tuple[object, ...]]) -> "Unit":
        """What is left to do."""
        pairs = zip(self.trials, self.row_keys(), strict=True)
        return replace(self, trials=tuple(trial for trial, key in pairs if key not in done))


def plan(
    protocol: Protocol,
    targets: Mapping[str, Sequence[Utterance]],
    networks: Mapping[int, tuple[Path, str]],
    config: AdaptConfig,
    tables: Sequence[str],
    methods: Sequence[str],
) -> list[Unit]:
    """List the trials, table by table.

    Args:
        protocol: source and means.
        targets: clips by corpus.
        networks: run folder and its fingerprint, by seed.
        config: of the adaptation.
        tables: in :data:`TABLES`.
        methods: by name; the studies have some of these, the ablations nnpm.
    """
    units = []
    for table in tables:
        for name in KINDS if table == NON_SPEECH else targets:
            utterances = targets[next(iter(targets)) if table == NON_SPEECH else name]
            clips = repr([(u.path.name, u.speaker, u.emotion) for u in utterances])
            for seed, (run, network) in networks.items():
                trials = tuple(
                    Trial(
                        case, method, variant, varied, _digest(network, clips, case, method, varied)
                    )
                    for case in _cases(table, name, utterances, protocol, seed)
                    for method, variant, varied in _contenders(table, methods, config)
                )
                units.append(Unit(table, name, seed, run, utterances, config.views, trials))
    return units


def _cases(
    table: str, name: str, utterances: Sequence[Utterance], protocol: Protocol, seed: int
) -> list[Case]:
    if table == NON_SPEECH:
        return [Case("not speech", ())]
    rng = np.random.default_rng([seed, TABLES.index(table)])
    return CASES[table](name, utterances, protocol, rng)


def _contenders(
    table: str, methods: Sequence[str], config: AdaptConfig
) -> list[tuple[str, str, AdaptConfig]]:
    """Method, variant, configuration."""
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
    places = [(part.adapt.tolist(), part.score.tolist()) for part in case.parts]
    parts = [network, clips, case.degradation, places, config.model_dump_json(exclude=others)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
