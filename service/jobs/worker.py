"""A worker claims a job, starts the child process that adapts, and publishes the result.

In order: ``Lease`` renews the claim while the work goes on, ``Eta`` estimates the time that is
left, ``Worker`` does the work.
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
from .folder import (
    AdaptationTask,
    EvaluationTask,
    JobFolder,
    JobRequest,
    read_json,
    write_json,
)
from .intake import Prepared, keep_changed, prepare
from .job import Change, Clips, Estimate, Job, Kind, State
from .labels import labelled_folder, read_labels
from .process import COMMAND, Child
from .store import JobStore

LOOK_S = 2.0
"""Time between two looks of an idle worker for a job, unless it is woken."""

_CANCEL_LOOK_S = 0.3
"""Time between two looks whether the job was cancelled."""

_WATCH_S = 0.1
"""Time between two looks at the child's progress."""

_REPORT_S = 0.5
"""Shortest time between two updates of a job's progress in the store."""

_RETRY_S = 2.0
"""Delay before a job, or a database that was unavailable, is tried again."""

_PREPARED, _ADAPTED = 0.05, 0.95
"""Progress of a job when its audio is prepared, and when its child has finished."""

log = logging.getLogger("nnpm")


class Lease:
    """Renews a worker's claim on a job from a thread of its own, also while the work blocks.

    While the database is unavailable the lease is not renewed, but the work goes on: once the
    database is back, the fencing token shows who has the job.

    Args:
        store: holds the job.
        job: as claimed.
        seconds: length of the lease.
    """

    def __init__(self, store: JobStore, job: Job, seconds: float) -> None:
        self._store = store
        self._job = job
        self._seconds = seconds
        self._end = threading.Event()
        self._error: LostLeaseError | UnknownJobError | CancelledError | None = None
        self._thread = threading.Thread(target=self._renew, name="nnpm-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def check(self) -> None:
        """Check that this worker still has the job, and that the job was not cancelled.

        Raises:
            CancelledError: if the job was cancelled.
            LostLeaseError: if another worker has the job.
            UnknownJobError: if the job was removed.
        """
        if self._error is not None:
            raise self._error

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._end.wait(min(_CANCEL_LOOK_S, self._seconds / 3)):
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
    """Time until the end of a job, from the speed since this worker began to watch it.

    Args:
        clock: monotonic time in seconds.

    Examples:
        >>> moments = iter([0.0, 2.0])
        >>> eta = Eta(lambda: next(moments))
        >>> eta.eta_s(0.2) is None, round(eta.eta_s(0.6), 6)
        (True, 2.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def eta_s(self, progress: float) -> float | None:
        """Estimate the seconds until the end, at the speed since the first call.

        Args:
            progress: in [0, 1].

        Returns:
            None at the first call, and until the progress has grown since then.
        """
        moment = self._clock()
        if self._first is None:
            self._first = (moment, progress)
        began, start = self._first
        if progress <= start:
            return None
        return (moment - began) * (1 - progress) / (progress - start)


class Worker:
    """Runs jobs, one at a time; any number of workers on any machines may share a store.

    Args:
        store: holds the jobs.
        registry: gets the new versions.
        settings: folders, limits, lease.
        on_published: called with the name of a model whose versions or aliases have changed.
        command: starts the child; tests pass their own.
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
        self._woken = threading.Event()
        self._id = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"

    def run(self, stop: threading.Event) -> None:
        """Run jobs until ``stop`` is set; the job in progress then goes back into the queue."""
        while not stop.is_set():
            self._woken.clear()
            try:
                if not self.work_once(stop):
                    self._woken.wait(LOOK_S)
            except StoreUnavailableError as error:
                # The child goes on; the worker that claims the job next finds it.
                log.warning("jobs have to wait: %s", error)
                stop.wait(_RETRY_S)
            except Exception:
                log.exception("a job failed with an unexpected error; its lease will run out")
                stop.wait(_RETRY_S)

    def wake(self) -> None:
        """Look for a job, or for ``stop``, at once."""
        self._woken.set()

    def work_once(self, stop: threading.Event) -> bool:
        """Claim one job and run it to its end; False if there was no job.

        Raises:
            StoreUnavailableError: if the database went away; the job is claimed again later.
        """
        lease_s, tries = self._settings.job_lease_s, self._settings.adapt_tries
        job = self._store.claim(self._id, lease_s, tries=tries)
        if job is None:
            return False
        with Lease(self._store, job, lease_s) as lease:
            try:
                self._run_job(job, lease, stop)
            except (LostLeaseError, UnknownJobError) as error:
                log.warning("another worker has job %s now: %s", job.id, error)
        return True

    def _run_job(self, job: Job, lease: Lease, stop: threading.Event) -> None:
        folder = JobFolder(self._settings.jobs, job.id)
        child = Child(folder, self._command)
        try:
            if read_json(folder.report) is None:
                self._adapt(job, folder, child, lease, stop)
            self._publish(job, folder, lease)
        except CancelledError:
            self._end(job, folder, state=State.CANCELLED)
        except _StoppedError:
            self._store.give_back(job.id, job.token, counts=False)
        except _ChildDiedError as error:
            self._retry(job, folder, str(error), State.INTERRUPTED)
        except (OSError, RegistryError) as error:
            self._retry(job, folder, _public_reason(error), State.FAILED)
        except StoreUnavailableError:
            raise
        except LostLeaseError:
            # A worker that has the job now watches the child; after the end of a job none does.
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
        """Let the child make report and bundle; an earlier claim may have started it."""
        if not child.alive():
            audio = prepare(job, folder, self._settings, partial(_check, lease, stop))
            if folder.labels.exists():
                read_labels(folder.labels, audio.folder)
            task = self._evaluation(job, folder, audio) or self._task(job, folder, audio)
            for old in (folder.progress, folder.error):
                old.unlink(missing_ok=True)
            write_json(folder.request, task.model_dump(mode="json"))
            child.start(self._settings.adapt_threads, self._settings.adapt_nice)
        evaluates = job.kind is Kind.EVALUATE
        self._report(job, State.EVALUATING if evaluates else State.ADAPTING, _PREPARED)
        try:
            self._watch(job, folder, child, lease, stop)
        except (CancelledError, _StoppedError):
            child.stop()
            raise
        if read_json(folder.report) is not None:
            return
        if (error := read_json(folder.error)) is None:
            raise _ChildDiedError(child.exit_reason())
        if error.get("errno") is not None:
            raise OSError(error["errno"], str(error.get("detail")))
        raise NnpmError(str(error.get("detail")))

    def _watch(
        self, job: Job, folder: JobFolder, child: Child, lease: Lease, stop: threading.Event
    ) -> None:
        reported, reported_at = None, 0.0
        eta = Eta()
        while child.alive():
            _check(lease, stop)
            stop.wait(_WATCH_S)
            found = read_json(folder.progress)
            moment = time.monotonic()
            if found and found != reported and moment - reported_at >= _REPORT_S:
                reported, reported_at = found, moment
                share = _PREPARED + (_ADAPTED - _PREPARED) * float(found["progress"])
                state = State.EVALUATING if job.kind is Kind.EVALUATE else State(found["state"])
                self._report(job, state, share, eta_s=eta.eta_s(share))

    def _task(self, job: Job, folder: JobFolder, audio: Prepared) -> AdaptationTask:
        base = self._registry.base(job.name, job.language, job.base)
        self._store.update(job.id, job.token, base=base.version)
        return AdaptationTask(
            **{name: getattr(job, name) for name in JobRequest.model_fields if name != "base"},
            base=base.version,
            bundle=base.path.resolve(),
            target=audio.folder.resolve(),
            passed_over=audio.passed_over,
            out=folder.out.resolve(),
            labels=folder.labels.resolve() if folder.labels.exists() else None,
            threads=self._settings.adapt_threads,
            min_clips=self._settings.adapt_min_clips,
        )

    def _evaluation(self, job: Job, folder: JobFolder, audio: Prepared) -> EvaluationTask | None:
        if job.kind is not Kind.EVALUATE:
            return None
        return EvaluationTask(
            bundle=self._registry.resolve(job.name, job.base).path.resolve(),
            target=labelled_folder(audio.folder).resolve(),
            out=folder.out.resolve() if job.apply else None,
            threads=self._settings.adapt_threads,
        )

    def _publish(self, job: Job, folder: JobFolder, lease: Lease) -> None:
        """Publish the child's bundle, or reject the job; a second call changes nothing."""
        report = read_json(folder.report)
        assert report is not None
        estimate, clips = report["estimated_accuracy"], report["clips"]
        share = report.get("answered_share") if job.kind is Kind.ADAPT else None
        found: dict[str, Any] = {
            "clips": Clips(
                clips["accepted"],
                clips["skipped"],
                clips["examples"],
                clips.get("passed_over", {}),
            ),
            "verdict": report["verdict"],
            "estimated_accuracy": Estimate(**estimate) if estimate else None,
            "answered_share": Change(**share) if share else None,
        }
        if job.keep_audio and (task := read_json(folder.request)) is not None:
            keep_changed(folder, Path(task["target"]), report, self._settings.limits)
        if report["bundle"] is None and job.kind is Kind.EVALUATE:
            self._report(job, State.PUBLISHING, _ADAPTED, **found)
            self._end(job, folder, state=State.SUCCEEDED, progress=1.0)
            return
        if report["bundle"] is None:
            self._end(job, folder, state=State.REJECTED, error=" ".join(report["reasons"]), **found)
            return
        self._report(job, State.PUBLISHING, _ADAPTED, **found)
        lease.check()
        try:
            version = self._registry.publish(folder.out, job.name, key=job.id)
        except BundleError as error:
            # A bundle that a crash or a disk has damaged is made again; first check that the job is
            # still ours, for another worker may have published it.
            self._store.update(job.id, job.token)
            folder.report.unlink(missing_ok=True)
            raise _ChildDiedError(f"The new bundle is damaged: {error}") from error
        if job.auto_promote and report["verdict"] == "improved":
            bundles.load(version.path)
            self._registry.promote(job.name, version.version, job.language)
        self._on_published(job.name)
        self._end(job, folder, state=State.SUCCEEDED, version=version.version, progress=1.0)

    def _report(self, job: Job, state: State, progress: float, **more: Any) -> None:
        self._store.update(job.id, job.token, state=state, progress=progress, **more)

    def _retry(self, job: Job, folder: JobFolder, reason: str, last: State) -> None:
        if job.attempts >= self._settings.adapt_tries:
            self._end(job, folder, state=last, error=reason)
        else:
            log.warning("job %s will be tried again: %s", job.id, reason)
            self._store.give_back(job.id, job.token, delay_s=_RETRY_S, error=reason)

    def _end(self, job: Job, folder: JobFolder, **changes: Any) -> None:
        changes.setdefault("error", None)
        self._store.update(job.id, job.token, eta_s=None, **changes)
        folder.remove_work()


def _check(lease: Lease, stop: threading.Event) -> None:
    """Check that this worker still has the job, and was not asked to stop."""
    lease.check()
    if stop.is_set():
        raise _StoppedError


class _StoppedError(Exception):
    """The worker was asked to stop."""


class _ChildDiedError(Exception):
    """The child ended without a report and without an error."""


def _public_reason(error: Exception) -> str:
    """Describe an error without any path of this machine, for the users of the service."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "The disk of the service is full."
        return f"The job's files cannot be read or written: {error.strerror or 'unknown reason'}."
    return "The new version cannot be written to the registry."
