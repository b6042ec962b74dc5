"""What was heard lately, by version and language: for people who decide which one shall answer.

Figures are of this process and of the last recordings that hold speech. Versions that answer and
shadows, which hear the same without answering, are kept alike.

Shadows: versions that hear a share of the requests after these were answered.
"""

import math
import random
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from ..inference.answer import Answer, Options
from ..inference.audio.waveform import Recording
from ..registry.serving import Route, Serving
from .pool import Executor

WINDOW = 200
"""Recordings that the figures are of."""

DRIFTED = 0.25
"""Share of recordings out of domain above which adapting again is worth while."""

_FEWEST = 50
_Z = 1.96

Role = Literal["live", "shadow"]


@dataclass(frozen=True, slots=True)
class _Heard:
    confidence: float
    abstained: bool
    out_of_domain: float
    beyond: bool
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one version in one role and language.

    Attributes:
        version: of the model.
        language: the route by which the recordings came.
        role: live: it answered them; shadow: another did.
        heard: recordings since the process began.
        recent: recordings that the shares are of, at most ``WINDOW``.
        mean_confidence: of the most probable emotion, in [0, 1].
        abstained: share that it abstained from (or would have), in [0, 1].
        out_of_domain: mean figure, in [0, 1].
        drift: share whose figure is above the bundle's threshold, in [0, 1].
        hint: what that means: ``few recordings yet``, ``as expected`` or ``adapt again``.
        agreement: share in which a shadow's most probable emotion is that of the version that
            answered; None for a live version.
    """

    version: str
    language: str
    role: Role
    heard: int
    recent: int
    mean_confidence: float
    abstained: float
    out_of_domain: float
    drift: float
    hint: str
    agreement: float | None


@dataclass
class _Rolling:
    heard: int = 0
    recent: deque[_Heard] = field(default_factory=lambda: deque(maxlen=WINDOW))


class Traffic:
    """Takes answers from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rolling: dict[tuple[str, str, str, Role], _Rolling] = {}
        self.skipped = 0
        """Recordings that no shadow heard because requests wanted the cores."""

    def live(self, name: str, version: str, language: str, answer: Answer, limit: float) -> None:
        """Count an answer; ``limit`` is the bundle's out-of-domain threshold."""
        self._add((name, version, language, "live"), answer, limit, None)

    def shadow(
        self, name: str, version: str, language: str, answer: Answer, limit: float, told: Answer
    ) -> None:
        """Count what a shadow would have answered where ``told`` was answered."""
        agrees = _best(answer) == _best(told)
        self._add((name, version, language, "shadow"), answer, limit, agrees)

    def skip(self) -> None:
        """Count a recording that no shadow heard."""
        with self._lock:
            self.skipped += 1

    def figures(self, name: str) -> list[Figures]:
        """The figures of all versions of a model, in order of language and version."""
        with self._lock:
            found = {
                key[1:]: (rolling.heard, list(rolling.recent))
                for key, rolling in self._rolling.items()
                if key[0] == name
            }
        order = sorted(found, key=lambda key: (key[1], key[0], key[2]))
        return [_figures(*key, *found[key]) for key in order]

    def names(self) -> list[str]:
        """The models of which anything was heard."""
        with self._lock:
            return sorted({key[0] for key in self._rolling})

    def _add(
        self, key: tuple[str, str, str, Role], answer: Answer, limit: float, agrees: bool | None
    ) -> None:
        if "no_speech" in answer.reasons:  # it says nothing about the voices
            return
        heard = _Heard(
            confidence=answer.confidence,
            abstained=answer.abstained,
            out_of_domain=answer.out_of_domain,
            beyond=answer.out_of_domain > limit,
            agrees=agrees,
        )
        with self._lock:
            rolling = self._rolling.setdefault(key, _Rolling())
            rolling.heard += 1
            rolling.recent.append(heard)


def _figures(version: str, language: str, role: Role, heard: int, recent: list[_Heard]) -> Figures:
    count = len(recent)
    beyond = sum(one.beyond for one in recent)
    agreed = [one.agrees for one in recent if one.agrees is not None]
    return Figures(
        version=version,
        language=language,
        role=role,
        heard=heard,
        recent=count,
        mean_confidence=sum(one.confidence for one in recent) / count,
        abstained=sum(one.abstained for one in recent) / count,
        out_of_domain=sum(one.out_of_domain for one in recent) / count,
        drift=beyond / count,
        hint=_hint(beyond, count),
        agreement=sum(agreed) / len(agreed) if agreed else None,
    )


def _hint(beyond: int, count: int) -> str:
    """Adapt again where the share is surely (95 %) above the limit, by Wilson's interval."""
    if count < _FEWEST:
        return "few recordings yet"
    share, z2 = beyond / count, _Z**2
    spread = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    least = (share + z2 / (2 * count) - spread) / (1 + z2 / count)
    return "adapt again" if least > DRIFTED else "as expected"


def _best(answer: Answer) -> str:
    return max(answer.scores, key=lambda emotion: answer.scores[emotion])


LONGEST_S = 60.0
"""Longer recordings are not heard twice: they would be held in memory, and hold up requests."""


class Shadows:
    """Lets shadows hear recordings when no request wants the cores.

    Args:
        share: of the requests whose route has a shadow, in [0, 1].
        executor: shared with the requests, which go first.
        serving: loads shadows.
        traffic: told what they would have answered.
    """

    def __init__(
        self, share: float, executor: Executor, serving: Serving, traffic: Traffic
    ) -> None:
        self._share = share
        self._executor = executor
        self._serving = serving
        self._traffic = traffic

    def wants(self, chosen: Route, recording: Recording) -> bool:
        """Whether the recording of a request shall be heard by a shadow."""
        return (
            chosen.shadow is not None
            and sum(waveform.duration_s for waveform in recording.waveforms) <= LONGEST_S
            and random.random() < self._share  # nosec B311 # noqa: S311 - no secret
        )

    def hear(self, chosen: Route, recording: Recording, options: Options, told: Answer) -> None:
        """Let the shadow hear it if the cores are free, and not at all otherwise."""
        shadow = chosen.shadow
        assert shadow is not None

        def job() -> None:
            recognizer = self._serving.load(shadow)
            answer = recognizer.answer(recording, options)
            limit = recognizer.bundle.card.decision.out_of_domain
            self._traffic.shadow(shadow.name, shadow.version, chosen.language, answer, limit, told)

        if not self._executor.spare(job):
            self._traffic.skip()
