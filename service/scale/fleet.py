"""The workers of the job queue as Ray actors: ``nnpm worker --engine ray``.

Each actor runs what ``nnpm worker`` runs: it claims jobs from the database that all share, and
gives back the one it has when it is stopped. So a fleet adapts to many languages at once, and Ray
decides on which machines.
"""

import argparse
import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..api.routes.adapt import describe_job
from ..command import UsageError
from ..jobs.process import COMMAND
from ..jobs.service import JobService
from ..registry.opening import open_registry
from ..settings import Settings
from .cluster import connected, require_ray

log = logging.getLogger("nnpm")


class FleetWorker:
    """Runs jobs, one at a time, until the actor ends; Ray makes it again if its machine dies.

    Args:
        given: the settings of the command that started the fleet.
        command: starts the process of an adaptation.
    """

    def __init__(self, given: Mapping[str, Any], command: Sequence[str] = COMMAND) -> None:
        own = Settings.model_validate({**given, "adapt_workers": 1})
        registry = open_registry(own)
        self._jobs = JobService(own, registry, describe=describe_job, command=command)
        self._jobs.start()

    def alive(self) -> bool:
        """Whether it takes jobs."""
        return self._jobs.alive

    def stop(self) -> None:
        """Take no more jobs; one in progress goes back into the queue."""
        self._jobs.stop()


def require_shared(own: Settings) -> None:
    """See that machines can share what the settings name.

    Raises:
        UsageError: if a path is relative, which each machine would read in its own way.
    """
    paths = {"NNPM_JOBS": own.jobs, "NNPM_MODELS": own.models}
    for name, path in paths.items():
        if not ("://" in str(path) or Path(path).is_absolute()):
            raise UsageError(f"{name} is {path}; workers on other machines need an absolute path.")
    if own.database_url.startswith("sqlite:///") and not own.database_url.startswith("sqlite:////"):
        raise UsageError(
            f"NNPM_DATABASE_URL is {own.database_url}; it must be a Postgres, or on one machine "
            "sqlite:////folder/nnpm.db."
        )


@contextmanager
def fleet(
    own: Settings, workers: int, *, address: str | None = None, command: Sequence[str] = COMMAND
) -> Iterator[list[Any]]:
    """Run workers on a cluster until the block ends.

    Args:
        own: settings; database, jobs folder and registry must be shared by all machines.
        workers: how many, each with a core of its own.
        address: of the cluster; None starts one on this machine.
        command: starts the process of an adaptation.

    Yields:
        The actors.

    Raises:
        ExtraMissingError: if Ray is not installed.
        UsageError: if the cluster cannot be reached, or has fewer cores than workers.
    """
    require_ray()
    require_shared(own)
    import ray

    with connected(address, workers) as cores:
        if cores < workers:
            raise UsageError(
                f"--workers is {workers}; the cluster has {cores} cores, and each worker needs one."
            )
        # A secret is not for Ray's dashboard: settings travel as an argument, not as a name.
        given = own.model_dump()
        kind = ray.remote(num_cpus=1, max_restarts=-1)(FleetWorker)
        actors: list[Any] = [kind.remote(given, command) for _ in range(workers)]
        try:
            ray.get([actor.alive.remote() for actor in actors])
            yield actors
        finally:
            stopping = [actor.stop.remote() for actor in actors]
            ray.wait(stopping, num_returns=len(stopping), timeout=30)
            for actor in actors:
                ray.kill(actor)


def run(args: argparse.Namespace, own: Settings) -> int:
    """Run the fleet until a signal to end; jobs in progress then go back into the queue."""
    ended = threading.Event()
    with fleet(own, max(1, own.adapt_workers), address=args.address) as actors:
        for sign in (signal.SIGTERM, signal.SIGINT):  # here, because Ray sets its own
            signal.signal(sign, lambda *_: ended.set())
        log.info("Ready. %d workers wait for jobs.", len(actors))
        ended.wait()
    return 0
