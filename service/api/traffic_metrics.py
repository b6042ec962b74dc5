"""What Prometheus may ask about versions: which ones answer, and what they heard lately."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.api.traffic import Traffic
from service.inference.errors import NnpmError
from service.registry.registry import DEFAULT_LANGUAGE, Registry

_LABELS = ["model", "version", "language"]


class TrafficCollector(Collector):
    """Figures of this process, and the aliases as the registry has them now."""

    def __init__(self, traffic: Traffic, registry: Registry) -> None:
        self._traffic = traffic
        self._registry = registry

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: that would read the registry."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read the figures."""
        drift = GaugeMetricFamily(
            "nnpm_drift",
            "Share of the last recordings that are out of the answering version's domain.",
            labels=_LABELS,
        )
        agreement = GaugeMetricFamily(
            "nnpm_shadow_agreement",
            "Share of the last recordings in which a shadow and the answer agree.",
            labels=_LABELS,
        )
        answers = CounterMetricFamily(
            "nnpm_shadow_answers", "Recordings that a shadow heard.", labels=_LABELS
        )
        confidence = GaugeMetricFamily(
            "nnpm_mean_confidence",
            "Mean confidence of the last recordings.",
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
            "nnpm_shadow_skipped", "Recordings that no shadow heard: requests wanted the cores."
        )
        skipped.add_metric([], self._traffic.skipped)
        return [drift, agreement, answers, confidence, skipped, self._aliases()]

    def _aliases(self) -> Metric:
        info = GaugeMetricFamily(
            "nnpm_model_info",
            "1 for every alias of a version.",
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
            pass  # /health and the log say what is wrong with the registry
        return info
