"""The services that routes work with, made once per app."""

import asyncio
import importlib.util
import threading
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


async def while_connected(
    request: Request, work: Coroutine[Any, Any, T], *, unwatched_s: float = 0.0
) -> T:
    """Await work for a request whose body was read, and end it early if the client leaves.

    Args:
        request: nothing else may receive from it meanwhile.
        work: is told by :func:`~..inference.errors.check_abandoned`, and waited for all the same,
            as it uses what the request holds.
        unwatched_s: seconds that pass before the client is looked after: work that ends sooner is
            done before it would pay.

    Raises:
        AbandonedError: if the client left.
    """
    leaving: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal leaving
        leaving = asyncio.create_task(_disconnect(request, abandoned))

    with abandonable() as abandoned:
        timer = asyncio.get_running_loop().call_later(unwatched_s, watch)
        try:
            found = await work
            if abandoned.is_set():
                raise AbandonedError("The client closed the connection before the answer.")
            return found
        finally:
            abandoned.set()
            timer.cancel()
            if leaving is not None:
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)


async def _disconnect(request: Request, abandoned: threading.Event) -> None:
    """Wait until the client closes the connection, and say so."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    abandoned.set()


async def services_of(connection: HTTPConnection) -> Services:
    """Dependency: the services of the app that serves this request or WebSocket."""
    services: Services = connection.app.state.services
    return services
