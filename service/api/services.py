"""What the routes work with, made once per app."""

from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from service.api.executor import Executor
from service.api.metrics import Metrics
from service.api.shadow import Shadows
from service.api.stream.streams import Streams
from service.api.tracing import Tracing
from service.api.traffic import Traffic
from service.jobs.office import Office
from service.registry.registry import Registry
from service.registry.serving import Serving
from service.settings import Settings


@dataclass
class Readiness:
    """Whether the default model has been loaded, and what stands in the way."""

    ready: bool = False
    obstacle: str = "The default model is being loaded."


@dataclass(frozen=True)
class Services:
    """Everything behind the routes of one app."""

    settings: Settings
    registry: Registry
    serving: Serving
    executor: Executor
    metrics: Metrics
    tracing: Tracing
    office: Office
    traffic: Traffic
    shadows: Shadows
    streams: Streams
    readiness: Readiness = field(default_factory=Readiness)


async def services_of(connection: HTTPConnection) -> Services:
    """Dependency: the services of the app that serves this request or WebSocket."""
    services: Services = connection.app.state.services
    return services
