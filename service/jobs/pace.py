"""When work will be done, from how fast it went so far."""

import time
from collections.abc import Callable


class Pace:
    """Watches one try of a job: what an earlier try or another process did tells nothing.

    Args:
        clock: seconds that only grow.

    Examples:
        >>> moments = iter([0.0, 2.0])
        >>> pace = Pace(lambda: next(moments))
        >>> pace.eta_s(0.2) is None, round(pace.eta_s(0.6), 6)
        (True, 2.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def eta_s(self, progress: float) -> float | None:
        """Seconds until the end, if it goes on as since the first call.

        Args:
            progress: in [0, 1].

        Returns:
            None at the first call, and while nothing has moved since.
        """
        moment = self._clock()
        if self._first is None:
            self._first = (moment, progress)
        began, start = self._first
        if progress <= start:
            return None
        return (moment - began) * (1 - progress) / (progress - start)
