"""The jobs of one process: their store, the workers that it has itself, and the janitor."""

import importlib.util
import threading
from collections.abc import Callable, Sequence

from service.jobs import janitor
from service.jobs.job import Job
from service.jobs.layout import JobFolder
from service.jobs.runner import COMMAND
from service.jobs.store import JobStore
from service.jobs.worker import Worker
from service.registry.registry import Registry
from service.settings import Settings


def can_adapt() -> bool:
    """Whether what adaptation needs is installed here; nothing is imported."""
    return all(importlib.util.find_spec(name) for name in ("training", "torch", "onnx"))


class Office:
    """Store and workers; opened by the first call to ``start``.

    Args:
        settings: of the service.
        registry: gets the new versions.
        on_published: told the name of a model whose versions or aliases have changed.
        command: of the children; tests have their own.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        on_published: Callable[[str], object] = lambda _: None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.store = JobStore(settings.database_url)
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
                target=janitor.run,
                args=(settings.jobs, self.store, self._stop),
                name="nnpm-janitor",
            )
        )

    @property
    def takes_jobs(self) -> bool:
        """Whether a job that is kept would be done: here, or by workers elsewhere."""
        return self._can_work or self._settings.adapt_workers == 0

    def tell(self) -> None:
        """There is a job: whoever idles here need not wait for the next look."""
        self._worker.wake()

    def cancel(self, id: str) -> Job:  # noqa: A002 - the job's own word
        """Cancel a job; the audio of one that only waited is removed at once.

        Returns:
            The job after it; one that has ended is left as it is.

        Raises:
            UnknownJobError: if there is none of that id.
        """
        job = self.store.request_cancel(id)
        if job.ended:
            JobFolder(self._settings.jobs, id).remove_work()
        return job

    def start(self) -> None:
        """Begin to work: jobs that an earlier process left are taken up as well."""
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether all that was started is at work still."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Stop working; a job under way goes back into the queue."""
        self._stop.set()
        self._worker.wake()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self.store.close()
