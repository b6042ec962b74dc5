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
from ..predict.pool import WorkerPool
from ..predict.traffic import Shadows, Traffic
from ..registry.opening import loader, open_registry
from ..registry.registry import Registry
from ..registry.serving import LoadedModels, Serving
from ..settings import Settings
from . import errors as handlers
from .errors import kind_of
from .metrics import JobsCollector, Metrics, Streams, TrafficCollector
from .middleware.access import OPEN_PATHS, Authenticate
from .middleware.observe import HeadAsGet, Observe
from .middleware.origin import HostAndOriginCheck
from .middleware.tickets import Tickets
from .middleware.uploads import UploadLimits
from .openapi import DESCRIPTION, TAGS, DocumentedApp, operation_id
from .routes import adapt, batch, evaluate, models, predict, stream, system, v2
from .routes import tickets as ticket_routes
from .services import Services
from .tracing import Tracing

RETRY_LOADING_S = 5.0

log = logging.getLogger("nnpm")


def create_app(
    settings: Settings,
    *,
    load: Callable[[Path], Recognizer] | None = None,
    adapt_command: Sequence[str] = COMMAND,
    tracing: Tracing | None = None,
    on_ready: Callable[[], None] | None = None,
) -> FastAPI:
    """Make the HTTP service.

    Args:
        settings: of this app.
        load: makes a recognizer from a bundle's folder; by default as the settings say.
        adapt_command: starts the process of an adaptation.
        tracing: makes spans; the environment's OTEL_... variables decide by default.
        on_ready: called once the default model is loaded.

    Returns:
        An ASGI app. It answers /health/live at once and loads the default model meanwhile.

    Raises:
        KeysError: if there is a file of keys that cannot be used.
        ExtraMissingError: if the settings ask for a GPU, and there is none that can be used.
        StoreConfigurationError: if the URL of the job database cannot be used.
    """
    keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
    metrics = Metrics()
    load = load or loader(settings, metrics.batch_clips.observe)
    tracing = tracing or Tracing.from_environment()
    registry = open_registry(settings)
    serving = Serving(registry, LoadedModels(load, settings.loaded_models))
    pool = WorkerPool(
        settings.workers,
        settings.queue_limit,
        on_wait=metrics.queue_seconds.observe,
        on_depth=metrics.queue_depth.set,
    )
    traffic = Traffic()
    services = Services(
        settings=settings,
        limits=settings.limits,
        registry=registry,
        serving=serving,
        pool=pool,
        traffic=traffic,
        shadows=Shadows(settings.shadow_share, pool, serving, traffic),
        streams=Streams(settings.max_streams, metrics.registry),
        metrics=metrics,
        tracing=tracing,
        jobs=JobService(
            settings,
            registry,
            on_published=serving.refresh,
            describe=adapt.describe_job,
            command=adapt_command,
        ),
    )
    metrics.registry.register(JobsCollector(services.jobs.store))
    metrics.registry.register(TrafficCollector(traffic, registry))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load_default(services, on_ready))
        services.serving.start()
        services.jobs.start()
        yield
        loading.cancel()
        await asyncio.to_thread(services.jobs.stop)
        await asyncio.to_thread(services.serving.stop)
        await asyncio.to_thread(services.pool.close)

    app = DocumentedApp(
        title="nnpm",
        summary="Speech emotion recognition",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
        lifespan=lifespan,
        # A redirect would name this process, not the proxy before it, whose prefix it cannot know.
        redirect_slashes=False,
        prefix=settings.root_path or "",
        telemetry=tracing.telemetry,
        docs_url=None,  # routes/system.py has our own
        redoc_url=None,
        keyed=keys is not None,
        open_paths=OPEN_PATHS,
    )
    app.state.services = services
    every = (predict, batch, stream, v2, adapt, models, evaluate, ticket_routes, system)
    for routes in every:
        app.include_router(routes.router)
    handlers.install(app)
    _add_middleware(app, settings, keys, Tickets(services.jobs.store.database))
    app.add_middleware(Observe, metrics=metrics, tracing=tracing)
    app.add_middleware(HeadAsGet)
    return app


def _add_middleware(
    app: FastAPI, settings: Settings, keys: ApiKeys | None, tickets: Tickets
) -> None:
    """Add what a request passes before a route sees it; the last one added is the outermost."""
    if settings.rate_limit is not None:
        from .middleware.access import RateLimit  # slow to import, and seldom used

        app.add_middleware(RateLimit, rate=settings.rate_limit)
    app.add_middleware(Authenticate, keys=keys, tickets=tickets)
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
    app.add_middleware(
        UploadLimits,
        max_bytes=settings.max_upload_bytes,
        idle_s=settings.body_timeout_s,
        min_bytes_per_s=settings.body_min_bytes_per_s,
    )


async def _load_default(services: Services, on_ready: Callable[[], None] | None) -> None:
    """Load the default model; try again until it is loaded."""
    readiness = services.readiness
    while not readiness.ready:
        try:
            await asyncio.to_thread(services.serving.choose)
            readiness.ready = True
            await asyncio.to_thread(_tell_of_outdated, services.registry)
        except Exception as error:  # whatever it is, the next try may find it gone
            # A message that may name files of this machine is not for clients.
            is_public = isinstance(error, NnpmError) and kind_of(error).detail is None
            obstacle = str(error) if is_public else BundleError.detail
            if obstacle != readiness.obstacle:
                log.warning("not ready: %s", error, exc_info=not isinstance(error, NnpmError))
            readiness.obstacle = obstacle
            await asyncio.sleep(RETRY_LOADING_S)
    if on_ready is not None:
        on_ready()


def _tell_of_outdated(registry: Registry) -> None:
    """Write to the log which versions a newer base has overtaken."""
    with contextlib.suppress(NnpmError):  # a registry that is away comes back
        for name in registry.names():
            for sentence in registry.outdated(name).values():
                log.warning("%s", sentence)
