"""What Prometheus may ask. Each app has its own registry: two apps in one process do not mix."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from service.api.schemas import PredictAnswer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters, gauges and histograms of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("requests", "HTTP requests.", "route", "status")
        self._errors = self._counter("errors", "Errors by problem code.", "code")
        self._answers = self._counter("answers", "Answers.", "model", "version", "emotion")
        self._abstentions = self._counter("abstentions", "Abstentions by reason.", "reason")
        self._audio = self._counter("audio_seconds", "Seconds of audio scored.")
        self._request_seconds = self._histogram("request_seconds", "Whole requests.", "route")
        self.queue_seconds = self._histogram("queue_seconds", "Waiting for a worker.")
        self.decode_seconds = self._histogram("decode_seconds", "Decoding one recording.")
        self.inference_seconds = self._histogram("inference_seconds", "Scoring one recording.")
        self._real_time_factor = Histogram(
            "nnpm_real_time_factor",
            "Seconds of decoding and scoring for a second of audio, by recording.",
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
        )
        self._out_of_domain = Histogram(
            "nnpm_out_of_domain",
            "Out-of-domain figures of the answers.",
            ("model", "version"),
            registry=self.registry,
            buckets=[n / 10 for n in range(1, 10)],
        )
        self.in_flight = Gauge(
            "nnpm_requests_in_flight", "HTTP requests under way.", registry=self.registry
        )
        self.queue_depth = Gauge(
            "nnpm_queue_depth", "Recordings waiting for a worker.", registry=self.registry
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
        self.heard(answer.audio.duration_s)
        worked_s = (answer.timing_ms.decode + answer.timing_ms.inference) / 1000
        self._real_time_factor.observe(worked_s / answer.audio.duration_s)

    def heard(self, seconds: float) -> None:
        """Count audio that was scored."""
        self._audio.inc(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nnpm_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"nnpm_{name}", text, labels, registry=self.registry, buckets=_SECONDS)
