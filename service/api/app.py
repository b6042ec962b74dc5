"""The app factory: everything that an app works with comes in as an argument."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from ... import __version__
from ..inference.errors import BundleError, NnpmError
from ..inference.recognizer import Recognizer
from ..jobs.process import COMMAND
from ..jobs.service import JobService
from ..keys import ApiKeys
from ..predict.pool import Executor
from ..predict.traffic import Shadows, Traffic
from ..registry.opening import open_registry
from ..registry.serving import LoadedModels, Serving, load_recognizer
from ..settings import Settings
from . import errors as handlers
from .errors import KINDS, kind_of
from .metrics import JobsCollector, Metrics, Streams, TrafficCollector
from .middleware.access import Authenticate
from .middleware.observe import HeadAsGet, Observe
from .middleware.origin import HostAndOriginCheck
from .middleware.uploads import BodyTimeout, DrainRequestBody, UploadLimit
from .openapi import Documented
from .routes import adapt, batch, models, predict, stream, system, v2
from .services import Services
from .tracing import Tracing

RETRY_LOADING_S = 5.0

log = logging.getLogger("nnpm")


def create_app(
    settings: Settings,
    *,
    load: Callable[[Path], Recognizer] = load_recognizer,
    adapt_command: Sequence[str] = COMMAND,
    tracing: Tracing | None = None,
    on_ready: Callable[[], None] | None = None,
) -> FastAPI:
    """Make the HTTP service.

    Args:
        settings: of this app.
        load: makes a recognizer of a bundle's folder.
        adapt_command: of the process that does an adaptation.
        tracing: makes spans; as OTEL_... says unless told.
        on_ready: called once the default model is loaded.

    Returns:
        An ASGI app. It answers /health/live at once and loads the default model meanwhile.

    Raises:
        KeysError: if the file of keys is named and cannot be used.
    """
    ring = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
    own_metrics = Metrics()
    tracing = tracing or Tracing.from_environment()
    registry = open_registry(settings)
    serving = Serving(registry, LoadedModels(load, settings.loaded_models))
    executor = Executor(
        settings.workers,
        settings.queue_limit,
        on_wait=own_metrics.queue_seconds.observe,
        on_depth=own_metrics.queue_depth.set,
    )
    traffic = Traffic()
    services = Services(
        settings=settings,
        registry=registry,
        serving=serving,
        executor=executor,
        traffic=traffic,
        shadows=Shadows(settings.shadow_share, executor, serving, traffic),
        streams=Streams(settings.max_streams, own_metrics.registry),
        metrics=own_metrics,
        tracing=tracing,
        office=JobService(settings, registry, on_published=serving.refresh, command=adapt_command),
    )

    own_metrics.registry.register(JobsCollector(services.office.store))
    own_metrics.registry.register(TrafficCollector(traffic, registry))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load_default(services, on_ready))
        services.serving.start()
        services.office.start()
        yield
        loading.cancel()
        await asyncio.to_thread(services.office.stop)
        await asyncio.to_thread(services.serving.stop)
        await asyncio.to_thread(services.executor.close)

    app = Documented(
        title="nnpm",
        summary="Speech emotion recognition",
        version=__version__,
        lifespan=lifespan,
        telemetry=tracing.telemetry,
        docs_url=None,  # of routes/docs.py
        redoc_url=None,
        keyed=ring is not None,
    )
    app.state.services = services
    for routes in (predict, batch, stream, v2, adapt, models, system):
        app.include_router(routes.router)
    handlers.install(app)
    _surround(app, settings, ring)
    app.add_middleware(Observe, metrics=own_metrics, tracing=tracing)
    app.add_middleware(HeadAsGet)
    return app


def _surround(app: FastAPI, settings: Settings, ring: ApiKeys | None) -> None:
    """What a request passes before a route sees it; the last one added is the outermost."""
    app.add_middleware(UploadLimit, max_bytes=settings.max_upload_bytes)
    app.add_middleware(
        BodyTimeout,
        idle_s=settings.body_timeout_s,
        min_bytes_per_s=settings.body_min_bytes_per_s,
    )
    if settings.rate_limit is not None:
        from .middleware.access import RateLimit  # slow to import, and seldom wanted

        app.add_middleware(RateLimit, rate=settings.rate_limit)
    app.add_middleware(Authenticate, ring=ring)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=["X-Request-ID", "Location", "Retry-After"],
        )
    app.add_middleware(HostAndOriginCheck, hosts=settings.names, origins=settings.allowed_origins)
    app.add_middleware(DrainRequestBody)


async def _load_default(services: Services, on_ready: Callable[[], None] | None) -> None:
    """Load the default model; try again until it is there."""
    readiness = services.readiness
    while not readiness.ready:
        try:
            await asyncio.to_thread(services.serving.choose)
            readiness.ready = True
        except Exception as error:  # whatever it is, the next try may find it gone
            # Only what says nothing of this machine's files is for clients.
            tells = isinstance(error, NnpmError) and kind_of(error).detail is None
            obstacle = str(error) if tells else KINDS[BundleError].detail or ""
            if obstacle != readiness.obstacle:
                log.warning("not ready: %s", error, exc_info=not isinstance(error, NnpmError))
            readiness.obstacle = obstacle
            await asyncio.sleep(RETRY_LOADING_S)
    if on_ready is not None:
        on_ready()
