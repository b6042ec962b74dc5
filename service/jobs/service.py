"""The jobs of one service process: the store, its workers, and the janitor of the jobs folder."""

import importlib.util
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..inference.errors import NnpmError
from ..registry.registry import Registry
from ..settings import Settings
from .callback import CallbackHosts, Callbacks
from .errors import UnknownJobError
from .folder import JobFolder
from .job import Job
from .process import COMMAND, Child
from .store import JobStore
from .worker import Worker


def can_adapt() -> bool:
    """Whether the packages that adaptation needs are installed; none is imported."""
    return all(importlib.util.find_spec(name) for name in ("nnpm.training", "autograd", "onnx"))


class JobService:
    """The job store, and the threads that run jobs once ``start`` is called.

    Args:
        settings: of the service.
        registry: gets the new versions.
        on_published: called with the name of a model whose versions or aliases have changed.
        describe: the job as users see it, in JSON; posted to its callback when it ends.
        command: starts a child process; tests pass their own.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        on_published: Callable[[str], object] = lambda _: None,
        describe: Callable[[Job], str] = Job.model_dump_json,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.store = JobStore(settings.database_url)
        self.command = command
        """Starts the process that adapts or evaluates."""
        self.callback_hosts = CallbackHosts(settings.callback_hosts)
        self._settings = settings
        self._can_work = can_adapt() or command is not COMMAND
        self._stop = threading.Event()
        self._worker = Worker(
            self.store, registry, settings, on_published=on_published, command=command
        )
        self._threads = [
            threading.Thread(target=self._worker.run, args=(self._stop,), name=f"nnpm-job-{number}")
            for number in range(settings.adapt_workers if self._can_work else 0)
        ]
        self._threads.append(
            threading.Thread(
                target=_keep_clean,
                args=(settings.jobs, self.store, settings.keep_audio_s, self._stop),
                name="nnpm-janitor",
            )
        )
        if settings.callback_hosts and settings.callback_secret:
            secret = settings.callback_secret.get_secret_value()
            callbacks = Callbacks(self.store, self.callback_hosts, secret, describe)
            self._threads.append(
                threading.Thread(
                    target=callbacks.run, args=(self._stop,), name="nnpm-callbacks", daemon=True
                )
            )

    @property
    def takes_jobs(self) -> bool:
        """Whether a new job would be run: here, or by workers elsewhere."""
        return self._can_work or self._settings.adapt_workers == 0

    def notify(self) -> None:
        """Let an idle worker look for a new job at once."""
        self._worker.wake()

    def cancel(self, id: str) -> Job:  # noqa: A002 - the job's own word
        """Cancel a job; the audio of a queued job, and what an ended one keeps, is removed at once.

        Returns:
            The job after the change; a job that has ended does not change.

        Raises:
            UnknownJobError: if there is no job of that id.
        """
        job = self.store.request_cancel(id)
        if job.ended:
            folder = JobFolder(self._settings.jobs, id)
            folder.remove_work()
            shutil.rmtree(folder.clips, ignore_errors=True)
        return job

    def start(self) -> None:
        """Start the threads; they also continue jobs that an earlier process left."""
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether all threads still run."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Stop the threads; a job in progress goes back into the queue."""
        self._stop.set()
        self._worker.wake()
        for thread in self._threads:
            if thread.is_alive():  # a callback under way is tried again by the next process
                thread.join(_GRACE_S if thread.daemon else None)
        self.store.close()


_GRACE_S = 1.0
"""Time that a callback under way has when the service stops."""

_SWEEP_S = 600.0
"""Time between two sweeps of the jobs folder."""

_ORPHAN_S = 3600.0
"""A folder without a job may belong to an upload in progress until it is this old."""

log = logging.getLogger("nnpm")


def sweep(
    root: Path, store: JobStore, *, orphan_s: float = _ORPHAN_S, keep_audio_s: float = 0.0
) -> None:
    """Remove the audio of ended jobs, and folders without a job; reports stay.

    Args:
        root: holds one folder per job.
        store: holds the jobs.
        orphan_s: age of a folder without a job at which it is removed.
        keep_audio_s: time since the end of a job at which its kept audio is removed.

    Raises:
        StoreUnavailableError: if the database is unavailable; nothing is removed then.
    """
    if not root.is_dir():
        return
    for path in root.iterdir():
        if not (path.is_dir() and path.name.isalnum()):
            continue
        folder = JobFolder(root, path.name)
        try:
            job = store.get(path.name)
            if job.ended and not Child(folder).alive():
                folder.remove_work()
                if not job.keeps_audio(keep_audio_s):
                    shutil.rmtree(folder.clips, ignore_errors=True)
        except UnknownJobError:
            try:
                old = time.time() - path.stat().st_mtime > orphan_s
            except FileNotFoundError:
                continue
            if old and not Child(folder).alive():
                folder.remove()


def _keep_clean(root: Path, store: JobStore, keep_audio_s: float, stop: threading.Event) -> None:
    """Sweep at once and then every ten minutes until ``stop`` is set."""
    while True:
        try:
            sweep(root, store, keep_audio_s=keep_audio_s)
        except (NnpmError, OSError) as error:
            log.warning("the jobs folder could not be cleaned up: %s", error)
        if stop.wait(_SWEEP_S):
            return
