"""The services that routes work with, made once per app."""

import asyncio
import importlib.util
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import HTTPConnection, Request

from ..inference.audio.waveform import Limits
from ..inference.errors import AbandonedError, abandonable
from ..jobs.service import JobService
from ..predict.pool import WorkerPool
from ..predict.schemas import PredictAnswer
from ..predict.traffic import Shadows, Traffic
from ..registry.registry import Registry
from ..registry.serving import Serving
from ..settings import Settings
from .metrics import Metrics, Streams
from .tracing import Tracing

T = TypeVar("T")


@dataclass
class Readiness:
    """Whether the default model has been loaded, and if not, why."""

    ready: bool = False
    obstacle: str = "The default model is being loaded."


class Off(BaseModel):
    """Something that this service does not do, and how its operator changes that."""

    what: str
    how: str


@dataclass(frozen=True)
class Services:
    """Everything behind the routes of one app."""

    settings: Settings
    limits: Limits
    registry: Registry
    serving: Serving
    pool: WorkerPool
    metrics: Metrics
    tracing: Tracing
    jobs: JobService
    traffic: Traffic
    shadows: Shadows
    streams: Streams
    readiness: Readiness = field(default_factory=Readiness)

    @cached_property
    def off(self) -> list[Off]:
        """What this service does not do, for lack of an extra or of a setting."""
        found = {
            "MP4, M4A, WebM, AMR, WMA and the audio of videos": (
                importlib.util.find_spec("av") is None,
                "pip install 'nnpm[media]'",
            ),
            "Parquet and XLSX": (
                any(importlib.util.find_spec(one) is None for one in ("pandas", "pyarrow")),
                "pip install 'nnpm[tables]'",
            ),
            "adaptation": (
                not self.jobs.takes_jobs,
                "pip install 'nnpm[adapt]', or NNPM_ADAPT_WORKERS=0 and nnpm worker elsewhere",
            ),
            "adaptation from folders of the server": (
                not self.settings.adapt_roots,
                "NNPM_ADAPT_ROOTS=/srv/recordings",
            ),
        }
        return [Off(what=what, how=how) for what, (is_off, how) in found.items() if is_off]

    def answered(self, request: HTTPConnection, answer: PredictAnswer) -> None:
        """Count an answer, and note it for the trace and the log, which do not get its emotion."""
        self.metrics.answer(answer)
        self.tracing.answered(answer)
        state = request.state
        state.audio_s = getattr(state, "audio_s", 0.0) + answer.audio.duration_s
        state.model, state.version = answer.model.name, answer.model.version


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await work for a request whose body was read, and end it early if the client leaves.

    Args:
        request: nothing else may receive from it meanwhile.
        work: is told by :func:`~..inference.errors.check_abandoned`, and waited for all the same,
            as it uses what the request holds.

    Raises:
        AbandonedError: if the client left.
    """
    with abandonable() as abandoned:
        task = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            abandoned.set()
            await asyncio.wait({task})
            raise AbandonedError("The client closed the connection before the answer.")
        return task.result()
    finally:
        abandoned.set()
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def services_of(connection: HTTPConnection) -> Services:
    """Dependency: the services of the app that serves this request or WebSocket."""
    services: Services = connection.app.state.services
    return services
