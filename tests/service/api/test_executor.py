import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nnpm.service.predict.pool import OverloadedError, WorkerPool


def run(scenario: Callable[[WorkerPool], Coroutine[Any, Any, None]], **settings: int) -> None:
    pool = WorkerPool(**{"workers": 1, "queue_limit": 9, **settings})
    try:
        asyncio.run(scenario(pool))
    finally:
        pool.close()


def test_urgent_jobs_pass_every_other_of_those_that_wait() -> None:
    async def scenario(pool: WorkerPool) -> None:
        begun, hold, order = threading.Event(), threading.Event(), []

        def holding_job(_: float) -> None:
            begun.set()
            hold.wait(10)

        def job(name: str) -> Callable[[float], None]:
            return lambda _: order.append(name)

        holding = asyncio.create_task(pool.run(holding_job))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        names = ["a", "b", "c", "d", "U", "V"]
        tasks = [asyncio.create_task(pool.run(job(name), urgent=name.isupper())) for name in names]
        await asyncio.sleep(0)
        hold.set()
        await asyncio.gather(holding, *tasks)
        assert order == ["U", "a", "V", "b", "c", "d"]

    run(scenario)


def test_a_job_whose_caller_is_gone_is_not_done() -> None:
    async def scenario(pool: WorkerPool) -> None:
        hold, done = threading.Event(), []
        holding = asyncio.create_task(pool.run(lambda _: hold.wait(10)))
        waiting = [asyncio.create_task(pool.run(lambda _, n=n: done.append(n))) for n in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        hold.set()
        await asyncio.gather(holding, *waiting, return_exceptions=True)
        assert done == [0, 2]
        assert pool.idle

    run(scenario)


def test_errors_are_their_callers() -> None:
    async def scenario(pool: WorkerPool) -> None:
        def fail(_: float) -> None:
            raise LookupError("mine")

        results = await asyncio.gather(
            pool.run(fail), pool.run(lambda _: 7), return_exceptions=True
        )
        assert [type(results[0]), results[1]] == [LookupError, 7]

    run(scenario)


def test_room_is_waited_for_but_not_for_ever() -> None:
    async def scenario(pool: WorkerPool) -> None:
        hold = threading.Event()
        holding = asyncio.create_task(pool.run(lambda _: hold.wait(10)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await pool.run(lambda _: None)
        with pytest.raises(OverloadedError):
            await pool.run_in_turn(lambda _: None, patience_s=0.05)
        patient = asyncio.create_task(pool.run_in_turn(lambda _: 7))
        await asyncio.sleep(0.05)
        hold.set()
        assert await patient == 7
        await holding

    run(scenario, queue_limit=0)


def test_what_waits_at_the_end_is_dropped() -> None:
    async def scenario(pool: WorkerPool) -> None:
        hold = threading.Event()
        holding = asyncio.create_task(pool.run(lambda _: hold.wait(10)))
        waiting = asyncio.create_task(pool.run(lambda _: 7))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(pool.close))
        await asyncio.sleep(0.05)
        hold.set()
        await closing
        await holding
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scenario)
