"""What happens to a job, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from service.api.adaptation.schemas import JobPart
from service.jobs.errors import StoreUnavailableError, UnknownJobError
from service.jobs.job import Job
from service.jobs.store import JobStore

_LOOK_S = 0.3


async def events(store: JobStore, job: Job) -> AsyncIterator[dict[str, str]]:
    """Yield the job as it is, then again after every change, until it has ended.

    Each is an event named ``job`` whose data are the job's JSON. While the database is away
    nothing comes.
    """
    yield _event(job)
    while not job.ended:
        await asyncio.sleep(_LOOK_S)
        try:
            found = await asyncio.to_thread(store.get, job.id)
        except StoreUnavailableError:
            continue
        except UnknownJobError:
            return
        if (found.updated_at, found.state) != (job.updated_at, job.state):
            yield _event(found)
        job = found


def _event(job: Job) -> dict[str, str]:
    return {"event": "job", "data": JobPart.of(job).model_dump_json()}
