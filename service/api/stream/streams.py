"""The streams that are open: how many there may be, and what they have given."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.api.errors import TooManyStreamsError

_LAGS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)


class Streams:
    """Counts streams; used from one event loop.

    Args:
        most: streams at a time.
        registry: of the app's metrics.
    """

    def __init__(self, most: int, registry: CollectorRegistry) -> None:
        self._most = most
        self._num_open = 0
        self._open = Gauge("nnpm_streams_open", "Streams under way.", registry=registry)
        self._ended = Counter(
            "nnpm_streams", "Streams by how they ended.", ("end",), registry=registry
        )
        self._segments = Counter(
            "nnpm_stream_segments", "Segments sent on streams.", registry=registry
        )
        self._lag = Histogram(
            "nnpm_stream_lag_seconds",
            "From the message that completes a hop to its segment.",
            registry=registry,
            buckets=_LAGS,
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Count a stream while it lasts.

        Raises:
            TooManyStreamsError: if it would be one too many.
        """
        if self._num_open >= self._most:
            raise TooManyStreamsError(
                f"{self._num_open} streams are open; at most {self._most} may be: try again later."
            )
        self._num_open += 1
        self._open.inc()
        try:
            yield
        finally:
            self._num_open -= 1
            self._open.dec()

    def segment(self, lag_s: float) -> None:
        """Count a segment that was sent."""
        self._segments.inc()
        self._lag.observe(lag_s)

    def ended(self, how: str) -> None:
        """Count the end of a stream: ``final``, ``left``, ``stalled`` or the code of an error."""
        self._ended.labels(how).inc()
