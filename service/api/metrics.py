"""The metrics for Prometheus, in a registry of each app: two apps in one process do not mix.

Requests, answers and streams are counted as they happen. Jobs, traffic and aliases are read from
the database, the process and the models folder when Prometheus asks.
"""

import contextlib
from collections.abc import Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..inference.card import DEFAULT_LANGUAGE
from ..inference.errors import NnpmError
from ..jobs.errors import StoreUnavailableError
from ..jobs.store import JobStore
from ..predict.schemas import PredictAnswer
from ..predict.traffic import Traffic
from ..registry.registry import Registry

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters, gauges and histograms of one app."""

    def __init__(self) -> None:
        # A second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter(
            "requests", "HTTP requests by route and status.", "route", "status"
        )
        self._errors = self._counter("errors", "Errors by their code.", "code")
        self._answers = self._counter(
            "answers", "Answers by model, version and emotion.", "model", "version", "emotion"
        )
        self._abstentions = self._counter(
            "abstentions", "Answers that abstain, by reason.", "reason"
        )
        self._audio = self._counter("audio_seconds", "Audio scored, in seconds.")
        self._request_seconds = self._histogram(
            "request_seconds", "Duration of requests, by route.", "route"
        )
        self.queue_seconds = self._histogram(
            "queue_seconds", "Time that recordings wait for a worker."
        )
        self.decode_seconds = self._histogram("decode_seconds", "Time to decode one recording.")
        self.inference_seconds = self._histogram(
            "inference_seconds", "Time to score one recording."
        )
        self._real_time_factor = Histogram(
            "nnpm_real_time_factor",
            "Time to decode and score a recording, divided by its duration.",
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
        )
        self.batch_clips = Histogram(
            "nnpm_batch_clips",
            "Clips that a GPU runs together.",
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self._out_of_domain = Histogram(
            "nnpm_out_of_domain",
            "Out-of-domain figures of the answers, from 0 to 1.",
            ("model", "version"),
            registry=self.registry,
            buckets=[n / 10 for n in range(1, 10)],
        )
        self.in_flight = Gauge(
            "nnpm_requests_in_flight", "HTTP requests in progress.", registry=self.registry
        )
        self.queue_depth = Gauge(
            "nnpm_queue_depth", "Recordings that wait for a worker.", registry=self.registry
        )

    def request(self, route: str, status: int, seconds: float, error_code: str | None) -> None:
        """Count one finished request."""
        self._requests.labels(route, status).inc()
        self._request_seconds.labels(route).observe(seconds)
        if error_code is not None:
            self.error(error_code)

    def error(self, code: str) -> None:
        """Count one error: of a request, of a file of a batch, of a stream."""
        self._errors.labels(code).inc()

    def answer(self, answer: PredictAnswer) -> None:
        """Count one answer."""
        self.decode_seconds.observe(answer.timing_ms.decode / 1000)
        self.inference_seconds.observe(answer.timing_ms.inference / 1000)
        model, emotion = answer.model, answer.emotion or "none"
        self._answers.labels(model.name, model.version, emotion).inc()
        for reason in answer.reasons if answer.abstained else ():
            self._abstentions.labels(reason).inc()
        self._out_of_domain.labels(model.name, model.version).observe(answer.out_of_domain)
        self.scored(answer.audio.duration_s)
        worked_s = (answer.timing_ms.decode + answer.timing_ms.inference) / 1000
        self._real_time_factor.observe(worked_s / answer.audio.duration_s)

    def scored(self, seconds: float) -> None:
        """Count audio that was scored."""
        self._audio.inc(seconds)

    def text(self) -> bytes:
        """Write all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nnpm_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"nnpm_{name}", text, labels, registry=self.registry, buckets=_SECONDS)


_LAGS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)


class TooManyStreamsError(NnpmError):
    """More open streams than the limit."""

    status, code, detail, retry_after_s = 503, "too_many_streams", None, 10
    title = "Too many streams"


class Streams:
    """Counts and limits streams; used from one event loop.

    Args:
        max_open: streams at a time.
        registry: of the app's metrics.
    """

    def __init__(self, max_open: int, registry: CollectorRegistry) -> None:
        self._max_open = max_open
        self._num_open = 0
        self._open = Gauge("nnpm_streams_open", "Open streams.", registry=registry)
        self._ended = Counter(
            "nnpm_streams", "Ended streams, by how they ended.", ("end",), registry=registry
        )
        self._segments = Counter(
            "nnpm_stream_segments", "Segments sent on streams.", registry=registry
        )
        self._lag = Histogram(
            "nnpm_stream_lag_seconds",
            "Time from the message that completes a segment to the segment.",
            registry=registry,
            buckets=_LAGS,
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Count a stream while it lasts.

        Raises:
            TooManyStreamsError: if the limit is reached.
        """
        if self._num_open >= self._max_open:
            raise TooManyStreamsError(
                f"{self._num_open} streams are open; at most {self._max_open} are allowed: try "
                "again later."
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


class JobsCollector(Collector):
    """Figures of the jobs of all services and workers that share a database.

    While the database is unavailable, ``nnpm_jobs_reachable`` is 0, and the other figures are
    missing.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        """Describe nothing in advance: that would query the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Query the database."""
        jobs = GaugeMetricFamily("nnpm_jobs", "Adaptations by state.", labels=["state"])
        seconds = SummaryMetricFamily(
            "nnpm_job_seconds",
            "Duration of ended adaptations, from their first start.",
            labels=["state"],
        )
        oldest = GaugeMetricFamily(
            "nnpm_jobs_oldest_queued_seconds", "Time that the oldest queued adaptation has waited."
        )
        reachable = GaugeMetricFamily(
            "nnpm_jobs_reachable", "1 if the job database can be used, else 0."
        )
        try:
            for state, count in self._store.counts().items():
                jobs.add_metric([state], count)
            for state, (count, total) in self._store.durations().items():
                seconds.add_metric([state], count, total)
            oldest.add_metric([], self._store.oldest_queued_s())
        except StoreUnavailableError:
            reachable.add_metric([], 0)
            return [reachable]
        reachable.add_metric([], 1)
        return [jobs, seconds, oldest, reachable]


_LABELS = ["model", "version", "language"]


class TrafficCollector(Collector):
    """Figures of the recordings that this process answered, and the current aliases."""

    def __init__(self, traffic: Traffic, registry: Registry) -> None:
        self._traffic = traffic
        self._registry = registry

    def describe(self) -> Iterable[Metric]:
        """Describe nothing in advance: that would read the registry."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read the figures."""
        drift = GaugeMetricFamily(
            "nnpm_drift",
            "Share of the latest recordings that are out of domain for the version that answered.",
            labels=_LABELS,
        )
        agreement = GaugeMetricFamily(
            "nnpm_shadow_agreement",
            "Share of the latest recordings in which a shadow agrees with the answer.",
            labels=_LABELS,
        )
        answers = CounterMetricFamily(
            "nnpm_shadow_answers", "Recordings that a shadow scored.", labels=_LABELS
        )
        confidence = GaugeMetricFamily(
            "nnpm_mean_confidence",
            "Mean confidence of the latest recordings.",
            labels=[*_LABELS, "role"],
        )
        for name in self._traffic.names():
            for found in self._traffic.figures(name):
                labels = [name, found.version, found.language]
                confidence.add_metric([*labels, found.role], found.mean_confidence)
                if found.role == "live":
                    drift.add_metric(labels, found.drift)
                elif found.agreement is not None:
                    answers.add_metric(labels, found.heard)
                    agreement.add_metric(labels, found.agreement)
        skipped = CounterMetricFamily(
            "nnpm_shadow_skipped",
            "Recordings that no shadow scored because requests needed the cores.",
        )
        skipped.add_metric([], self._traffic.skipped)
        return [drift, agreement, answers, confidence, skipped, self._aliases()]

    def _aliases(self) -> Metric:
        info = GaugeMetricFamily(
            "nnpm_model_info",
            "1 for each alias of a version.",
            labels=["name", "version", "language", "alias"],
        )
        try:
            for name in self._registry.names():
                aliases = self._registry.aliases(name)
                for language, held in aliases.items():
                    for alias in ("live", "previous", "shadow"):
                        if (version := getattr(held, alias)) is not None:
                            info.add_metric([name, version, language, alias], 1)
                if DEFAULT_LANGUAGE not in aliases:
                    version = self._registry.live(name).version
                    info.add_metric([name, version, DEFAULT_LANGUAGE, "live"], 1)
        except (NnpmError, OSError):
            pass  # /health/ready and the log report what is wrong with the registry
        return info
