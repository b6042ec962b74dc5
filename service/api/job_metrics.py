"""What Prometheus may ask about adaptations: counted by the database when it asks."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.jobs.errors import StoreUnavailableError
from service.jobs.store import JobStore


class JobsCollector(Collector):
    """Jobs of all services and workers that share a store.

    While the database is away there are no figures but ``nnpm_jobs_reachable``, which is 0.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: that would ask the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Ask the database."""
        jobs = GaugeMetricFamily("nnpm_jobs", "Adaptations by state.", labels=["state"])
        seconds = SummaryMetricFamily(
            "nnpm_job_seconds",
            "Ended adaptations, from when a worker first took them.",
            labels=["state"],
        )
        oldest = GaugeMetricFamily(
            "nnpm_jobs_oldest_queued_seconds", "How long the oldest adaptation has waited."
        )
        reachable = GaugeMetricFamily(
            "nnpm_jobs_reachable", "Whether the database of jobs can be used."
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
