"""Shadows: versions that hear a share of the requests after these were answered."""

import random

from service.api.executor import Executor
from service.api.traffic import Traffic
from service.inference.answer import Answer, Options
from service.inference.audio import Recording
from service.registry.serving import Chosen, Serving

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

    def wants(self, chosen: Chosen, recording: Recording) -> bool:
        """Whether the recording of a request shall be heard by a shadow."""
        return (
            chosen.shadow is not None
            and sum(waveform.duration_s for waveform in recording.waveforms) <= LONGEST_S
            and random.random() < self._share  # nosec B311 # noqa: S311 - no secret
        )

    def hear(self, chosen: Chosen, recording: Recording, options: Options, told: Answer) -> None:
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
