"""Figures of the latest recordings, by version and language; and shadows.

The figures help people to decide which version shall answer. They are of this process and of the
last recordings that hold speech. A shadow is a version that scores a share of the requests after
these were answered, so that its figures can be compared with those of the version that answered.
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
from .pool import WorkerPool

WINDOW = 200
"""Recordings that the shares and means are of, at most."""

DRIFTED = 0.25
"""Share of recordings out of domain above which another adaptation is worth while."""

_FEWEST = 50
_Z = 1.96

Role = Literal["live", "shadow"]


@dataclass(frozen=True, slots=True)
class _Observation:
    """What is kept of one answer."""

    confidence: float
    abstained: bool
    out_of_domain: float
    beyond: bool
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one version in one role and language.

    Attributes:
        version: of the model.
        language: the route by which the recordings came.
        role: live: it answered them; shadow: it scored what another version answered.
        heard: recordings since the process began.
        recent: recordings that the shares are of, at most ``WINDOW``.
        mean_confidence: of the most probable emotion, in [0, 1].
        abstained: share that it abstained from (or would have), in [0, 1].
        out_of_domain: mean out-of-domain figure, in [0, 1].
        drift: share whose out-of-domain figure is above the bundle's threshold, in [0, 1].
        hint: what the drift means: ``few recordings yet``, ``as expected`` or ``adapt again``.
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
    total: int = 0
    recent: deque[_Observation] = field(default_factory=lambda: deque(maxlen=WINDOW))


class Traffic:
    """Counts answers; calls may come from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rolling: dict[tuple[str, str, str, Role], _Rolling] = {}
        self.skipped = 0
        """Recordings that no shadow scored because requests needed the cores."""

    def count_live(
        self, name: str, version: str, language: str, answer: Answer, limit: float
    ) -> None:
        """Count an answer; ``limit`` is the bundle's out-of-domain threshold."""
        self._add((name, version, language, "live"), answer, limit, None)

    def count_shadow(
        self, name: str, version: str, language: str, answer: Answer, limit: float, live: Answer
    ) -> None:
        """Count what a shadow would have answered in place of ``live``."""
        agrees = _best(answer) == _best(live)
        self._add((name, version, language, "shadow"), answer, limit, agrees)

    def skip(self) -> None:
        """Count a recording that no shadow scored."""
        with self._lock:
            self.skipped += 1

    def figures(self, name: str) -> list[Figures]:
        """List the figures of all versions of a model, in order of language and version."""
        with self._lock:
            found = {
                key[1:]: (rolling.total, list(rolling.recent))
                for key, rolling in self._rolling.items()
                if key[0] == name
            }
        order = sorted(found, key=lambda key: (key[1], key[0], key[2]))
        return [_figures(*key, *found[key]) for key in order]

    def names(self) -> list[str]:
        """List the models that have figures."""
        with self._lock:
            return sorted({key[0] for key in self._rolling})

    def _add(
        self, key: tuple[str, str, str, Role], answer: Answer, limit: float, agrees: bool | None
    ) -> None:
        if "no_speech" in answer.reasons:  # it says nothing about the speakers
            return
        observation = _Observation(
            confidence=answer.confidence,
            abstained=answer.abstained,
            out_of_domain=answer.out_of_domain,
            beyond=answer.out_of_domain > limit,
            agrees=agrees,
        )
        with self._lock:
            rolling = self._rolling.setdefault(key, _Rolling())
            rolling.total += 1
            rolling.recent.append(observation)


def _figures(
    version: str, language: str, role: Role, total: int, recent: list[_Observation]
) -> Figures:
    count = len(recent)
    beyond = sum(one.beyond for one in recent)
    agreed = [one.agrees for one in recent if one.agrees is not None]
    return Figures(
        version=version,
        language=language,
        role=role,
        heard=total,
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
"""Shadows score no longer recordings: they would be held in memory, and delay requests."""


class Shadows:
    """Lets shadows score recordings while no request needs the cores.

    Args:
        share: of the requests whose route has a shadow, in [0, 1].
        pool: shared with the requests, which go first.
        serving: loads shadows.
        traffic: counts what they would have answered.
    """

    def __init__(self, share: float, pool: WorkerPool, serving: Serving, traffic: Traffic) -> None:
        self._share = share
        self._pool = pool
        self._serving = serving
        self._traffic = traffic

    def wants(self, route: Route, recording: Recording) -> bool:
        """Whether a shadow shall score the recording of a request."""
        return (
            route.shadow is not None
            and sum(waveform.duration_s for waveform in recording.waveforms) <= LONGEST_S
            and random.random() < self._share  # nosec B311 # noqa: S311 - no secret
        )

    def score(self, route: Route, recording: Recording, options: Options, live: Answer) -> None:
        """Let the shadow score a recording that ``live`` answered, if a core is free now."""
        shadow = route.shadow
        assert shadow is not None

        def job() -> None:
            recognizer = self._serving.load(shadow)
            answer = recognizer.answer(recording, options)
            limit = recognizer.bundle.card.decision.out_of_domain
            self._traffic.count_shadow(
                shadow.name, shadow.version, route.language, answer, limit, live
            )

        if not self._pool.run_if_idle(job):
            self._traffic.skip()
