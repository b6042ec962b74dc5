"""The one pool that computes: bounded, measured, and never on the event loop."""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ..inference.errors import NnpmError

T = TypeVar("T")
_Job = tuple["Future[Any]", Callable[[], Any]]

PATIENCE_S = 10.0
"""How long one of many jobs of a caller waits for room in the queue."""

log = logging.getLogger("nnpm")


class OverloadedError(NnpmError):
    """The queue is full."""


class Executor:
    """Runs jobs on threads; used from one event loop.

    Args:
        workers: threads.
        queue_limit: jobs that may wait for a thread.
        on_wait: called with the seconds that a job waited for a thread.
        on_depth: called with the number of waiting jobs whenever it changes.
    """

    def __init__(
        self,
        workers: int,
        queue_limit: int,
        *,
        on_wait: Callable[[float], object] = lambda _: None,
        on_depth: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="nnpm-worker")
        self._workers = workers
        self._queue_limit = queue_limit
        self._on_wait = on_wait
        self._on_depth = on_depth
        self._jobs = 0
        self._room = asyncio.Event()
        # A thread that is free takes a job of each kind in turn, if both wait.
        self._urgent: deque[_Job] = deque()
        self._usual: deque[_Job] = deque()
        self._urgent_was_last = False

    @property
    def workers(self) -> int:
        """Threads."""
        return self._workers

    @property
    def idle(self) -> bool:
        """Whether a thread has nothing to do."""
        return self._jobs < self._workers

    def check(self) -> None:
        """See whether one more job would be taken; cheap enough to ask before reading an upload.

        Raises:
            OverloadedError: if the queue is full.
        """
        if self._is_full:
            raise OverloadedError(
                f"{self._jobs - self._workers} recordings wait for {self._workers} workers and "
                f"{self._queue_limit} may; try again later."
            )

    async def run(self, job: Callable[[float], T], *, urgent: bool = False) -> T:
        """Run one job; it is told the seconds it waited. Its error is raised to its caller alone.

        Args:
            job: computes.
            urgent: somebody is speaking meanwhile: the job waits for at most every other one of
                those that are not.

        Raises:
            OverloadedError: if the queue is full.
        """
        self.check()
        submitted = time.perf_counter()

        def timed() -> T:
            queue_s = time.perf_counter() - submitted
            self._on_wait(queue_s)
            return job(queue_s)

        loop = asyncio.get_running_loop()
        # The request's id goes along: it belongs to whatever the job writes into the log.
        context = contextvars.copy_context()
        future = self._submit(lambda: context.run(timed), urgent=urgent)
        self._count(1)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._count, -1))
        return await asyncio.wrap_future(future)

    async def run_in_turn(
        self,
        job: Callable[[float], T],
        *,
        urgent: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> T:
        """Run one of many jobs of a caller; where the queue is full, wait for room.

        Raises:
            OverloadedError: if it was full for all of ``patience_s``.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while self._is_full:
                    self._room.clear()
                    await self._room.wait()
        return await self.run(job, urgent=urgent)

    def spare(self, job: Callable[[], object]) -> bool:
        """Run a job that nobody waits for, if a thread is free and no other job waits.

        Returns:
            Whether it was taken. Its error goes to the log.
        """
        if not self.idle:
            return False
        loop = asyncio.get_running_loop()
        future = self._submit(job)
        self._count(1)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._count, -1))
        future.add_done_callback(_log_error)
        return True

    def close(self) -> None:
        """Let running jobs end, and drop those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for future, _ in (*self._urgent, *self._usual):
            future.cancel()

    def _submit(self, call: Callable[[], T], *, urgent: bool = False) -> "Future[T]":
        future: Future[T] = Future()
        (self._urgent if urgent else self._usual).append((future, call))
        self._pool.submit(self._work)
        return future

    def _work(self) -> None:
        """Do one job; there are as many calls of this as jobs."""
        first, second = self._urgent, self._usual
        if self._urgent_was_last:
            first, second = second, first
        try:
            future, call = first.popleft()
        except IndexError:
            first = second
            future, call = first.popleft()
        self._urgent_was_last = first is self._urgent
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    @property
    def _is_full(self) -> bool:
        return self._jobs >= self._workers + self._queue_limit

    def _count(self, change: int) -> None:
        self._jobs += change
        if change < 0:
            self._room.set()
        self._on_depth(max(0, self._jobs - self._workers))


def _log_error(future: Future[object]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("a job in the background failed: %s", error)
