"""Protocols and cases: what a benchmark learns from, adapts to and scores.

A protocol names source and target corpora. A case says which clips of a target are adapted to,
which are scored, and how they are degraded; every row of a table is the outcome of one case.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...service.inference.card import CORE_EMOTIONS
from ..adaptation.methods import METHODS
from ..corpora import Utterance
from ..data.augment import Augmentation

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TEST = ("urdu", "emodb", "ased", "emotiontts")
"""Corpora that nothing is chosen from."""

HELD_OUT = " (held out)"
"""After the name of a source corpus as a target: only speakers that the network never heard."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Source and target corpora.

    Attributes:
        name: as users call it.
        source: corpora with labels.
        development: targets that choices are made on; of a source corpus, its held-out speakers.
        targets: corpora whose labels are used only to score.
        uncurated: targets that are also adapted to with all their clips, whatever the emotion.
        whole: targets whose speakers cannot be halved.
    """

    name: str
    source: tuple[str, ...]
    development: tuple[str, ...]
    targets: tuple[str, ...] = TEST
    uncurated: tuple[str, ...] = ("ased",)
    whole: tuple[str, ...] = ("urdu",)
    """Nearly every speaker of Urdu speaks in only one emotion."""


_ALL = ("ravdess", "crema", "nemo", "banglaser")
_SOURCES = {
    "P1": ("ravdess", "crema"),  # the paper's setting: English alone
    "P2": ("ravdess", "nemo"),  # every figure before December 2026
    "P3": _ALL,  # models/default
    "open": ("crema", "banglaser"),  # models/open: licences that allow commercial use
}

PROTOCOLS = {
    **{name: Protocol(name, source, ("hindi", *source)) for name, source in _SOURCES.items()},
    **{
        f"without_{name}": Protocol(
            f"without_{name}", tuple(other for other in _ALL if other != name), ("hindi", name)
        )
        for name in _ALL
    },
}
"""By name; docs/research/benchmark.md says what each is for."""

STUDIED = ("adabn", "entropy", "nnpm")
"""The methods that the studies try; main and inductive try all that were asked for."""


def all_methods(more: Iterable[str] = ()) -> tuple[str, ...]:
    """Every method of ours and ``more``, ``nnpm`` last."""
    return tuple(sorted(dict.fromkeys((*METHODS, *more)), key=lambda name: name == "nnpm"))


_UNCHANGED = Augmentation(resample_p=0, equaliser_p=0, room_p=0, noise_p=0)

DEGRADATIONS: dict[str, Augmentation] = {
    "recorded": _UNCHANGED,
    "telephone": Augmentation(
        resample_p=0, equaliser_p=1, equaliser_db=0, telephone_p=1, room_p=0, noise_p=0
    ),
    "noise": Augmentation(resample_p=0, equaliser_p=0, room_p=0, noise_p=1, noise_snr_db=(10, 10)),
    "room": Augmentation(resample_p=0, equaliser_p=0, room_p=1, noise_p=0),
}
"""By name; ``recorded`` changes nothing."""


def degrade(samples: Floats, degradation: str) -> Floats:
    """Change a clip; the same clip is always changed in the same way.

    Args:
        samples: float32 at 16 kHz, shape ``(num_samples,)``.
        degradation: a name in :data:`DEGRADATIONS`.
    """
    digest = hashlib.sha256(samples.tobytes()).digest()
    return DEGRADATIONS[degradation](samples, np.random.default_rng(int.from_bytes(digest)))


CURATED, UNCURATED = "curated", "uncurated"
CURVE = (20, 50, 100, 400)
"""Clips that are adapted to, in the study of few clips."""
LABELLED = (0, 10, 20, 50, 100)
"""Clips whose labels are given, in the study of labels."""
SKEWED = 0.7
"""Share of the emotion that most clips have, in the study of label shift."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Clips, as places in the corpus.

    Attributes:
        adapt: given to the method without their labels.
        score: scored afterwards.
        labelled: those of ``adapt`` whose labels are given, as places in the corpus.
    """

    adapt: Ints
    score: Ints
    labelled: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One condition of a target.

    Attributes:
        condition: its name in the tables.
        parts: adapted and scored one by one, and counted together.
        degradation: what is done to every clip.
    """

    condition: str
    parts: tuple[Part, ...]
    degradation: str = "recorded"


def main(
    name: str, utterances: Sequence[Utterance], protocol: Protocol, _rng: np.random.Generator
) -> list[Case]:
    """All clips of the core emotions; where the protocol says so, also adapted to all clips."""
    core = core_clips(utterances)
    cases = [Case(CURATED, (Part(core, core),))]
    if name in protocol.uncurated and len(core) < len(utterances):
        cases.append(Case(UNCURATED, (Part(np.arange(len(utterances)), core),)))
    return cases


def inductive(
    name: str, utterances: Sequence[Utterance], protocol: Protocol, rng: np.random.Generator
) -> list[Case]:
    """Adapt on half of the speakers and score the other half, both ways."""
    if name in protocol.whole:
        return []
    core = core_clips(utterances)
    first = _half_of_the_speakers([utterances[place] for place in core], rng)
    if not first:
        return []
    inside = np.array([utterances[place].speaker in first for place in core])
    halves = core[inside], core[~inside]
    return [Case("inductive", (Part(halves[0], halves[1]), Part(halves[1], halves[0])))]


def shift(
    _name: str, utterances: Sequence[Utterance], _protocol: Protocol, rng: np.random.Generator
) -> list[Case]:
    """One emotion absent, or 70 % of the clips, each in turn; the clips left are scored."""
    return resampled(utterances, rng)


def curve(
    _name: str, utterances: Sequence[Utterance], _protocol: Protocol, rng: np.random.Generator
) -> list[Case]:
    """Random clips, as many as the corpus has, each size within the next; all are scored."""
    core = core_clips(utterances)
    order = rng.permutation(core)
    return [
        Case(f"{size} clips", (Part(np.sort(order[:size]), core),))
        for size in CURVE
        if size <= len(core)
    ]


def degraded(
    _name: str, utterances: Sequence[Utterance], _protocol: Protocol, _rng: np.random.Generator
) -> list[Case]:
    """All clips by telephone, in noise, and in a room."""
    core = core_clips(utterances)
    return [Case(kind, (Part(core, core),), kind) for kind in DEGRADATIONS if kind != "recorded"]


def labels(
    _name: str, utterances: Sequence[Utterance], _protocol: Protocol, rng: np.random.Generator
) -> list[Case]:
    """Labels of random clips, each size within the next; clips that no size names are scored."""
    core = core_clips(utterances)
    order = rng.permutation(core)
    rest = np.sort(order[LABELLED[-1] :])
    if len(rest) < LABELLED[-1]:
        return []
    return [Case(f"{size} labels", (Part(core, rest, np.sort(order[:size])),)) for size in LABELLED]


Cases = Callable[[str, Sequence[Utterance], Protocol, np.random.Generator], list[Case]]

CASES: dict[str, Cases] = {
    "main": main,
    "inductive": inductive,
    "shift": shift,
    "curve": curve,
    "degraded": degraded,
    "labels": labels,
    "ablations": lambda *given: main(*given)[:1],
}
"""By table."""


def resampled(utterances: Sequence[Utterance], rng: np.random.Generator) -> list[Case]:
    """Every emotion absent in turn, then each as 70 % of the clips, where that can be drawn."""
    core = core_clips(utterances)
    emotion = np.array([utterances[place].emotion for place in core])
    cases = []
    for name in sorted(set(emotion.tolist())):
        rest = core[emotion != name]
        if len(rest):
            cases.append(Case(f"no {name}", (Part(rest, rest),)))
    for name in sorted(set(emotion.tolist())):
        if parts := _skew(core, emotion, name, rng):
            chosen = np.sort(np.concatenate(parts))
            cases.append(Case(f"{SKEWED:.0%} {name}", (Part(chosen, chosen),)))
    return cases


def core_clips(utterances: Sequence[Utterance]) -> Ints:
    """Places of the clips of the four core emotions."""
    return np.flatnonzero([u.emotion in CORE_EMOTIONS for u in utterances])


def _half_of_the_speakers(
    utterances: Sequence[Utterance], rng: np.random.Generator
) -> frozenset[str]:
    """Half of the speakers, women and men alike; empty, where there are fewer than two."""
    gender = {u.speaker: u.gender for u in utterances}
    shuffled = [sorted(gender)[place] for place in rng.permutation(len(gender))]
    by_gender = sorted(shuffled, key=gender.__getitem__)  # stable
    return frozenset(by_gender[::2]) if len(by_gender) > 1 else frozenset()


def _skew(core: Ints, emotion: NDArray[np.str_], name: str, rng: np.random.Generator) -> list[Ints]:
    """Clips of one emotion, 70 %, and as many of each other emotion; as many as there can be."""
    others = [rng.permutation(core[emotion == e]) for e in sorted(set(emotion.tolist()) - {name})]
    if not others:
        return []
    frequent = rng.permutation(core[emotion == name])
    share = (1 - SKEWED) / SKEWED / len(others)
    each = min(round(len(frequent) * share), min(map(len, others)))
    if each == 0:
        return []
    return [frequent[: round(each / share)], *(clips[:each] for clips in others)]
