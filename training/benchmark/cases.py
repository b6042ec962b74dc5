"""Which clips of a target are adapted to and which are scored: one case per row of a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.inference.labels import CORE_EMOTIONS
from training.benchmark.protocol import Protocol
from training.corpora import Utterance

Ints = NDArray[np.int64]

CURATED, UNCURATED = "curated", "uncurated"
CURVE = (20, 50, 100, 400, 1000)
"""Clips of the learning curve."""
SKEWED = 0.7
"""Share of the emotion that most clips have, in the study of label shift."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Clips, as places in the corpus.

    Attributes:
        adapt: heard without their labels.
        score: answered afterwards.
    """

    adapt: Ints
    score: Ints


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


def shift(
    _name: str, utterances: Sequence[Utterance], _protocol: Protocol, rng: np.random.Generator
) -> list[Case]:
    """One emotion absent, or 70 % of the clips, each in turn; the clips left are scored."""
    core = core_clips(utterances)
    emotion = np.array([utterances[place].emotion for place in core])
    cases = []
    for name in sorted(set(emotion.tolist())):
        rest = core[emotion != name]
        if len(rest):
            cases.append(Case(f"no {name}", (Part(rest, rest),)))
    for name in sorted(set(emotion.tolist())):
        if kept := _skew(core, emotion, name, rng):
            chosen = np.sort(np.concatenate(kept))
            cases.append(Case(f"{SKEWED:.0%} {name}", (Part(chosen, chosen),)))
    return cases


def degraded(
    _name: str, utterances: Sequence[Utterance], _protocol: Protocol, _rng: np.random.Generator
) -> list[Case]:
    """All clips by telephone, and in noise."""
    core = core_clips(utterances)
    return [Case(kind, (Part(core, core),), kind) for kind in ("telephone", "noise")]


CASES: dict[
    str, Callable[[str, Sequence[Utterance], Protocol, np.random.Generator], list[Case]]
] = {
    "main": main,
    "inductive": inductive,
    "ablations": lambda *given: main(*given)[:1],
    "curve": curve,
    "shift": shift,
    "degraded": degraded,
}
"""By table; "strange", which has no labels, is :mod:`training.benchmark.strange_targets`."""


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
    """All clips of one emotion and, of the others alike, as many as are 30 %."""
    frequent = core[emotion == name]
    others = [rng.permutation(core[emotion == e]) for e in sorted(set(emotion.tolist()) - {name})]
    if not others:
        return []
    each = round(len(frequent) * (1 - SKEWED) / SKEWED / len(others))
    if each == 0 or each > min(map(len, others)):
        return []
    return [frequent, *(clips[:each] for clips in others)]
