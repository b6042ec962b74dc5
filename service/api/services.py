"""The services that routes work with, made once per app."""

from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from ..inference.audio.waveform import Limits
from ..jobs.service import JobService
from ..predict.pool import WorkerPool
from ..predict.schemas import PredictAnswer
from ..predict.traffic import Shadows, Traffic
from ..registry.registry import Registry
from ..registry.serving import Serving
from ..settings import Settings
from .metrics import Metrics, Streams
from .tracing import Tracing


@dataclass
class Readiness:
    """Whether the default model has been loaded, and if not, why."""

    ready: bool = False
    obstacle: str = "The default model is being loaded."


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

    def answered(self, request: HTTPConnection, answer: PredictAnswer) -> None:
        """Count an answer, and note it for the trace and the log, which do not get its emotion."""
        self.metrics.answer(answer)
        self.tracing.answered(answer)
        state = request.state
        state.audio_s = getattr(state, "audio_s", 0.0) + answer.audio.duration_s
        state.model, state.version = answer.model.name, answer.model.version


async def services_of(connection: HTTPConnection) -> Services:
    """Dependency: the services of the app that serves this request or WebSocket."""
    services: Services = connection.app.state.services
    return services
