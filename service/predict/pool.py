"""The one pool of threads that computes: bounded, measured, and never on the event loop."""

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from ..inference.errors import NnpmError

T = TypeVar("T")


class _Job:
    """What a thread will call, and who waits for it."""

    __slots__ = ("_taken", "call", "future")

    def __init__(self, call: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.call = call
        self.future = future
        self._taken = threading.Lock()

    def take(self) -> bool:
        """Claim it, from any thread; False if another has."""
        return self._taken.acquire(blocking=False)


PATIENCE_S = 10.0
"""How long one of many jobs of a caller waits for room in the queue."""

log = logging.getLogger("nnpm")


class OverloadedError(NnpmError):
    """The queue is full."""

    status, code, detail, retry_after_s = 503, "overloaded", None, 1
    title = "The queue is full"


class WorkerPool:
    """Runs jobs on threads; used from one event loop.

    Waiting jobs stand in two lines, urgent and usual; a thread that becomes free takes from each
    in turn. The threads start with the first job.

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
        self.workers = workers
        self._queue_limit = queue_limit
        self._on_wait = on_wait
        self._on_depth = on_depth
        self._num_jobs = 0  # running or waiting; the event loop's
        self._depth = 0
        self._room = asyncio.Event()
        self._waiting: SimpleQueue[None] = SimpleQueue()  # one item for each job in the two lines
        self._lock = threading.Lock()  # guards all that follows
        self._urgent: deque[_Job] = deque()
        self._usual: deque[_Job] = deque()
        self._urgent_was_last = False
        self._closed = False
        self._threads: list[threading.Thread] = []

    @property
    def idle(self) -> bool:
        """Whether a thread has nothing to do."""
        return self._num_jobs < self.workers

    def check(self) -> None:
        """See whether one more job would be taken; cheap enough to ask before reading an upload.

        Raises:
            OverloadedError: if the queue is full.
        """
        if self._is_full:
            raise OverloadedError(
                f"{self._num_jobs - self.workers} recordings wait for {self.workers} workers; at "
                f"most {self._queue_limit} may wait: try again later."
            )

    async def run(self, job: Callable[[float], T], *, urgent: bool = False) -> T:
        """Run one job, and raise its error to this caller alone.

        Args:
            job: computes; its argument is the number of seconds that it has waited.
            urgent: for somebody who is speaking meanwhile: the job waits for at most every other
                one of those that are not urgent.

        Raises:
            OverloadedError: if the queue is full.
        """
        self.check()
        submitted_s = time.perf_counter()

        def timed() -> T:
            queue_s = time.perf_counter() - submitted_s
            self._on_wait(queue_s)
            return job(queue_s)

        # The request's id goes along: it belongs to whatever the job writes into the log.
        context = contextvars.copy_context()
        return await self._submit(partial(context.run, timed), urgent=urgent)

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

    def run_if_idle(self, job: Callable[[], object]) -> bool:
        """Run a job whose result no caller needs, if a thread is free and no other job waits.

        Returns:
            Whether it was taken. Its error goes to the log.
        """
        if not self.idle:
            return False
        self._submit(job).add_done_callback(_log_error)
        return True

    def close(self) -> None:
        """Let running jobs end, and drop those that wait."""
        with self._lock:
            self._closed = True
            dropped = [*self._urgent, *self._usual]
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        for job in dropped:
            _on_its_loop(job, job.future.cancel)

    def _submit(self, call: Callable[[], T], *, urgent: bool = False) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(call, future)
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            (self._urgent if urgent else self._usual).append(job)
        self._waiting.put(None)
        if not self._threads:
            self._start()
        self._count(1)
        future.add_done_callback(lambda _: self._forget(job))
        return future

    def _forget(self, job: _Job) -> None:
        """Count a job whose caller has gone before a thread took it."""
        if job.take():
            self._count(-1)

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=self._work, name=f"nnpm-worker_{index}", daemon=True)
            for index in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        """Do jobs until the pool is closed; one thread's whole life."""
        while (job := self._next()) is not None:
            if job.take():
                self._do(job)
            del job  # a thread without work holds no recording

    def _next(self) -> _Job | None:
        self._waiting.get()
        with self._lock:
            if self._closed:
                return None
            is_urgent = bool(self._urgent) and not (self._urgent_was_last and self._usual)
            self._urgent_was_last = is_urgent
            return (self._urgent if is_urgent else self._usual).popleft()

    def _do(self, job: _Job) -> None:
        """Do a job, and wake the event loop once for its result."""
        try:
            result = job.call()
        except BaseException as error:
            if isinstance(error, StopIteration):  # which no future takes
                error = RuntimeError(error)
            _on_its_loop(job, partial(self._end, job.future, None, error))
        else:
            _on_its_loop(job, partial(self._end, job.future, result, None))

    def _end(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        self._count(-1)
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    @property
    def _is_full(self) -> bool:
        return self._num_jobs >= self.workers + self._queue_limit

    def _count(self, change: int) -> None:
        self._num_jobs += change
        if change < 0:
            self._room.set()
        depth = max(0, self._num_jobs - self.workers)
        if depth != self._depth:
            self._depth = depth
            self._on_depth(depth)


def _on_its_loop(job: _Job, call: Callable[[], object]) -> None:
    """Call something on the event loop that waits for a job, unless the loop has ended."""
    with contextlib.suppress(RuntimeError):
        job.future.get_loop().call_soon_threadsafe(call)


def _log_error(future: "asyncio.Future[object]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("a job in the background failed: %s", error)
