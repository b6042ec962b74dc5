"""The claim of a worker on a job, renewed while the work goes on.

When work will be done, from how fast it went so far.

Takes jobs from the store, has them done by a child process, and publishes what comes of it.
"""

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..inference import bundle as bundles
from ..inference.errors import BundleError, NnpmError
from ..registry.registry import Registry, RegistryError
from ..settings import Settings
from .errors import CancelledError, LostLeaseError, StoreUnavailableError, UnknownJobError
from .folder import AdaptationTask, JobFolder, JobRequest, read_json, write_json
from .intake import prepare
from .job import Clips, Estimate, Job, State
from .process import COMMAND, Child
from .store import JobStore

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


class Eta:
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


LOOK_S = 2.0
"""How often an idle worker looks for a job that nobody told it of."""

_WATCH_S = 0.1
_TELL_S = 0.5
_AGAIN_S = 2.0
_PREPARED = 0.05  # of the whole
_ADAPTED = 0.95

log = logging.getLogger("nnpm")


class Worker:
    """Does jobs, one at a time; any number of workers may share a store, also across machines.

    Args:
        store: of the jobs.
        registry: gets the new versions.
        settings: folders, limits, lease.
        on_published: told the name of a model whose versions or aliases have changed.
        command: of the child; tests have their own.
    """

    def __init__(
        self,
        store: JobStore,
        registry: Registry,
        settings: Settings,
        *,
        on_published: Callable[[str], object] = lambda _: None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._on_published = on_published
        self._command = command
        self._news = threading.Event()
        self._id = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"

    def run(self, stop: threading.Event) -> None:
        """Do jobs until ``stop`` is set; the job under way then goes back into the queue."""
        while not stop.is_set():
            self._news.clear()
            try:
                if not self.work_once(stop):
                    self._news.wait(LOOK_S)
            except StoreUnavailableError as error:
                # The child goes on; whoever claims the job next finds it.
                log.warning("jobs wait: %s", error)
                stop.wait(_AGAIN_S)
            except Exception:
                log.exception("a job failed in a way that nobody foresaw; its lease will run out")
                stop.wait(_AGAIN_S)

    def wake(self) -> None:
        """Look at once: there is a job, or the end has come."""
        self._news.set()

    def work_once(self, stop: threading.Event) -> bool:
        """Take one job and see it through; False if there was none.

        Raises:
            StoreUnavailableError: if the database went away; the job is taken up again later.
        """
        lease_s, tries = self._settings.job_lease_s, self._settings.adapt_tries
        job = self._store.claim(self._id, lease_s, tries=tries)
        if job is None:
            return False
        with Lease(self._store, job, lease_s) as lease:
            try:
                self._see_through(job, lease, stop)
            except (LostLeaseError, UnknownJobError) as error:
                log.warning("job %s is another's now: %s", job.id, error)
        return True

    def _see_through(self, job: Job, lease: Lease, stop: threading.Event) -> None:
        folder = JobFolder(self._settings.jobs, job.id)
        child = Child(folder, self._command)
        try:
            if read_json(folder.report) is None:
                self._adapt(job, folder, child, lease, stop)
            self._conclude(job, folder, lease)
        except CancelledError:
            self._end(job, folder, state=State.CANCELLED)
        except _StoppedError:
            self._store.give_back(job.id, job.token, counts=False)
        except _BrokenOffError as error:
            self._again(job, folder, str(error), State.INTERRUPTED)
        except (OSError, RegistryError) as error:
            self._again(job, folder, _plainly(error), State.FAILED)
        except StoreUnavailableError:
            raise
        except LostLeaseError:
            # Whoever has the job now watches the child; of a job that has ended nobody does.
            if self._store.get(job.id).ended:
                child.stop_own()
            raise
        except UnknownJobError:
            child.stop()
            raise
        except NnpmError as error:
            self._end(job, folder, state=State.FAILED, error=str(error))

    def _adapt(
        self, job: Job, folder: JobFolder, child: Child, lease: Lease, stop: threading.Event
    ) -> None:
        """Have report and bundle made, by a child that may be at work already."""
        if not child.alive():
            target = prepare(job, folder, self._settings, partial(_go_on, lease, stop))
            task = self._task(job, folder, target)
            for old in (folder.progress, folder.error):
                old.unlink(missing_ok=True)
            write_json(folder.request, task.model_dump(mode="json"))
            child.start(self._settings.adapt_threads, self._settings.adapt_nice)
        self._tell(job, State.ADAPTING, _PREPARED)
        try:
            self._watch(job, folder, child, lease, stop)
        except (CancelledError, _StoppedError):
            child.stop()
            raise
        if read_json(folder.report) is not None:
            return
        if (error := read_json(folder.error)) is None:
            raise _BrokenOffError(child.how_it_ended())
        if error.get("errno") is not None:
            raise OSError(error["errno"], str(error.get("detail")))
        raise NnpmError(str(error.get("detail")))

    def _watch(
        self, job: Job, folder: JobFolder, child: Child, lease: Lease, stop: threading.Event
    ) -> None:
        told, told_at = None, 0.0
        pace = Eta()
        while child.alive():
            _go_on(lease, stop)
            stop.wait(_WATCH_S)
            found = read_json(folder.progress)
            moment = time.monotonic()
            if found and found != told and moment - told_at >= _TELL_S:
                told, told_at = found, moment
                share = _PREPARED + (_ADAPTED - _PREPARED) * float(found["progress"])
                self._tell(job, State(found["state"]), share, eta_s=pace.eta_s(share))

    def _task(self, job: Job, folder: JobFolder, target: Path) -> AdaptationTask:
        if job.base is None:
            base = self._registry.live(job.name, job.language)
        else:
            base = self._registry.resolve(job.name, job.base)
        self._store.update(job.id, job.token, base=base.version)
        return AdaptationTask(
            **{name: getattr(job, name) for name in JobRequest.model_fields if name != "base"},
            base=base.version,
            bundle=base.path.resolve(),
            target=target.resolve(),
            out=folder.out.resolve(),
            threads=self._settings.adapt_threads,
            min_clips=self._settings.adapt_min_clips,
        )

    def _conclude(self, job: Job, folder: JobFolder, lease: Lease) -> None:
        """Publish what the child made, or say why not; all of it may be done twice."""
        report = read_json(folder.report)
        assert report is not None
        estimate, clips = report["estimated_accuracy"], report["clips"]
        found: dict[str, Any] = {
            "clips": Clips(clips["accepted"], clips["skipped"], clips["examples"]),
            "verdict": report["verdict"],
            "estimated_accuracy": Estimate(**estimate) if estimate else None,
        }
        if report["bundle"] is None:
            self._end(job, folder, state=State.REJECTED, error=" ".join(report["reasons"]), **found)
            return
        self._tell(job, State.PUBLISHING, _ADAPTED, **found)
        lease.check()
        try:
            version = self._registry.publish(folder.out, job.name, key=job.id)
        except BundleError as error:
            # What a crash or a disk has spoilt is made anew; what another has published is not.
            self._store.update(job.id, job.token)
            folder.report.unlink(missing_ok=True)
            raise _BrokenOffError(f"The new bundle is damaged: {error}") from error
        if job.auto_promote and report["verdict"] == "improved":
            bundles.load(version.path)
            self._registry.promote(job.name, version.version, job.language)
        self._on_published(job.name)
        self._end(job, folder, state=State.SUCCEEDED, version=version.version, progress=1.0)

    def _tell(self, job: Job, state: State, progress: float, **more: Any) -> None:
        self._store.update(job.id, job.token, state=state, progress=progress, **more)

    def _again(self, job: Job, folder: JobFolder, reason: str, last: State) -> None:
        if job.attempts >= self._settings.adapt_tries:
            self._end(job, folder, state=last, error=reason)
        else:
            log.warning("job %s will be tried again: %s", job.id, reason)
            self._store.give_back(job.id, job.token, delay_s=_AGAIN_S, error=reason)

    def _end(self, job: Job, folder: JobFolder, **changes: Any) -> None:
        changes.setdefault("error", None)
        self._store.update(job.id, job.token, eta_s=None, **changes)
        folder.remove_work()


def _go_on(lease: Lease, stop: threading.Event) -> None:
    """See that the job is still to be done, and by this worker."""
    lease.check()
    if stop.is_set():
        raise _StoppedError


class _StoppedError(Exception):
    """This worker was asked to stop."""


class _BrokenOffError(Exception):
    """The child died without a word."""


def _plainly(error: Exception) -> str:
    """What a user of the service may read: no path of this machine."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "The disk of the service is full."
        return f"The job's files cannot be read or written: {error.strerror or 'unknown reason'}."
    return "The new version cannot be written to the registry."
