"""Protocols and cases: what a benchmark learns from, adapts to and scores.

A protocol names source and target corpora. A case says which clips of a target are adapted to,
which are scored, and how they are degraded; every row of a table is the outcome of one case.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.inference.card import CORE_EMOTIONS
from ..adaptation.methods import METHODS
from ..corpora import Utterance
from ..data.non_speech import babble, chords, noise

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Protocol:
    """Source and target corpora.

    Attributes:
        name: as users call it.
        source: corpora with labels.
        targets: corpora whose labels are used only to score.
        outside: targets that the means leave out.
        uncurated: targets that are also adapted to with all their clips, whatever the emotion.
        whole: targets whose speakers cannot be halved.
    """

    name: str
    source: tuple[str, ...]
    targets: tuple[str, ...]
    outside: tuple[str, ...] = ()
    uncurated: tuple[str, ...] = ("ased",)
    whole: tuple[str, ...] = ("urdu",)
    """Nearly every speaker of Urdu speaks in only one emotion."""


_TEST = ("urdu", "emodb", "ased", "emotiontts")

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # the paper's setting: English alone
        Protocol("P1", ("ravdess", "crema"), (*_TEST, "nemo"), outside=("nemo",)),
        # P1 as it was before CREMA-D was among the corpora; kept to compare with earlier results
        Protocol("P1_ravdess", ("ravdess",), (*_TEST, "nemo"), outside=("nemo",)),
        # English and Polish: the first bundled model
        Protocol("P2", ("ravdess", "nemo"), _TEST),
        # the product's: every source corpus
        Protocol("P3", ("ravdess", "crema", "nemo", "banglaser"), _TEST),
    )
}
"""By name; docs/research/benchmark.md says what each is for."""

STUDIED = ("source_only", "adabn", "entropy", "nnpm")
"""The methods that the studies try; main and inductive try all that were asked for."""


def all_methods() -> tuple[str, ...]:
    """Every method, ``nnpm`` last."""
    return tuple(sorted(METHODS, key=lambda name: name == "nnpm"))


NOISE_DB = 10.0
"""Speech over noise, in power."""

_NARROW_HZ = 8_000
_MU = 255.0
_LEVELS = 127


def telephone(samples: Floats) -> Floats:
    """Narrow band of a telephone: down to 8 kHz and mu-law (ITU-T G.711), and back; peak 1.

    Args:
        samples: float32 at 16 kHz, shape ``(num_samples,)``.
    """
    peak = max(1e-6, float(np.abs(samples).max(initial=0.0)))
    narrow = soxr.resample(samples / peak, SAMPLE_RATE_HZ, _NARROW_HZ)
    pressed = np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)
    coded = np.round(pressed * _LEVELS) / _LEVELS
    loud = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(_MU)) / _MU
    return np.asarray(soxr.resample(loud, _NARROW_HZ, SAMPLE_RATE_HZ), np.float32)


def noisy(samples: Floats) -> Floats:
    """Pink noise added at :data:`NOISE_DB`; the same clip has the same noise."""
    seed = int.from_bytes(hashlib.sha256(samples.tobytes()).digest()[:7])
    noise = _pink(np.random.default_rng(seed), len(samples))
    power = float(np.mean(samples.astype(np.float64) ** 2))
    scale = np.sqrt(power / (np.mean(noise**2) + 1e-12) / 10 ** (NOISE_DB / 10))
    return np.asarray(samples + scale * noise, np.float32)


def _recorded(samples: Floats) -> Floats:
    return samples


def _pink(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Noise whose power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0))
    return np.fft.irfft(spectrum, count)


DEGRADATIONS: dict[str, Callable[[Floats], Floats]] = {
    "recorded": _recorded,
    "telephone": telephone,
    "noise": noisy,
}
"""By name; ``recorded`` changes nothing."""

CURATED, UNCURATED = "curated", "uncurated"
CURVE = (20, 50, 100, 400, 1000)
"""Clips of the learning curve."""
SKEWED = 0.7
"""Share of the emotion that most clips have, in the study of label shift."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Clips, as places in the corpus.

    Attributes:
        adapt: given to the method without their labels.
        score: scored afterwards.
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
        if parts := _skew(core, emotion, name, rng):
            chosen = np.sort(np.concatenate(parts))
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
"""By table; non-speech sounds have no labels: see :mod:`nnpm.training.benchmark.work`."""


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


_COUNT = 100

KINDS: dict[str, Callable[[np.random.Generator, Sequence[Floats]], Floats]] = {
    "music": lambda rng, _clips: chords(rng),
    "noise": lambda rng, _clips: noise(rng, rng.uniform(0.0, 2.0)),
    "babble": babble,
}
"""By name: makes one sound of three seconds."""


def make_sounds(kind: str, clips: Sequence[Floats], seed: int) -> list[Floats]:
    """A hundred sounds of one kind; babble is made of ``clips``."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return [KINDS[kind](rng, clips) for _ in range(_COUNT)]
