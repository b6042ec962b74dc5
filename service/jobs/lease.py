"""The claim of a worker on a job, renewed while the work goes on."""

import threading
import time
from types import TracebackType
from typing import Self

from service.jobs.errors import (
    CancelledError,
    LostLeaseError,
    StoreUnavailableError,
    UnknownJobError,
)
from service.jobs.job import Job
from service.jobs.store import JobStore

_LOOK_S = 0.3
"""How often is asked whether the job was cancelled."""


class Lease:
    """Keeps a claim alive from a thread of its own, also while the work blocks.

    A database that is away renews nothing and takes nothing away either; what counts is who has
    the job when it is back.

    Args:
        store: of the job.
        job: as claimed.
        seconds: of the lease.
    """

    def __init__(self, store: JobStore, job: Job, seconds: float) -> None:
        self._store = store
        self._job = job
        self._seconds = seconds
        self._over = threading.Event()
        self._error: LostLeaseError | UnknownJobError | CancelledError | None = None
        self._thread = threading.Thread(target=self._keep, name="nnpm-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """See that the job is still to be done by this worker.

        Raises:
            CancelledError: if somebody cancelled it.
            LostLeaseError: if another worker has it.
            UnknownJobError: if it was removed.
        """
        if self._error is not None:
            raise self._error

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._over.wait(min(_LOOK_S, self._seconds / 3)):
            try:
                if time.monotonic() - renewed >= self._seconds / 3:
                    job = self._store.heartbeat(self._job.id, self._job.token, self._seconds)
                    renewed = time.monotonic()
                else:
                    job = self._store.get(self._job.id)
                if job.token != self._job.token:
                    raise LostLeaseError(f"Job {job.id} was taken by another worker.")
                if job.cancel_requested:
                    raise CancelledError(f"Job {job.id} was cancelled.")
            except (LostLeaseError, UnknownJobError, CancelledError) as error:
                self._error = error
                if not isinstance(error, CancelledError):
                    return
            except StoreUnavailableError:
                continue
