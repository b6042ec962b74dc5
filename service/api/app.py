"""The app factory: everything that an app works with comes in as an argument."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from fastapi import FastAPI

from service import __version__
from service.api import handlers
from service.api.executor import Executor
from service.api.job_metrics import JobsCollector
from service.api.limits import UploadLimit
from service.api.linger import Linger
from service.api.methods import HeadAsGet
from service.api.metrics import Metrics
from service.api.observe import Observe
from service.api.openapi import Documented
from service.api.problems import KINDS, kind_of
from service.api.routes import adapt, health, metrics, models, predict
from service.api.services import Services
from service.api.shadow import Shadows
from service.api.traffic import Traffic
from service.api.traffic_metrics import TrafficCollector
from service.inference.errors import BundleError, NnpmError
from service.inference.recognizer import Recognizer
from service.jobs.office import Office
from service.jobs.runner import COMMAND
from service.registry.loaded import LoadedModels, load_recognizer
from service.registry.opening import open_registry
from service.registry.serving import Serving
from service.settings import Settings

RETRY_LOADING_S = 5.0

log = logging.getLogger("nnpm")


def create_app(
    settings: Settings,
    *,
    load: Callable[[Path], Recognizer] = load_recognizer,
    adapt_command: Sequence[str] = COMMAND,
    on_ready: Callable[[], None] | None = None,
) -> FastAPI:
    """Make the HTTP service.

    Args:
        settings: of this app.
        load: makes a recognizer of a bundle's folder.
        adapt_command: of the process that does an adaptation.
        on_ready: called once the default model is loaded.

    Returns:
        An ASGI app. It answers /health/live at once and loads the default model meanwhile.
    """
    own_metrics = Metrics()
    registry = open_registry(settings)
    serving = Serving(registry, LoadedModels(load, settings.loaded_models))
    executor = Executor(settings.workers, settings.queue_limit, own_metrics)
    traffic = Traffic()
    services = Services(
        settings=settings,
        registry=registry,
        serving=serving,
        executor=executor,
        traffic=traffic,
        shadows=Shadows(settings.shadow_share, executor, serving, traffic),
        metrics=own_metrics,
        office=Office(settings, registry, on_published=serving.refresh, command=adapt_command),
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
    )
    app.state.services = services
    for routes in (predict, adapt, models, health, metrics):
        app.include_router(routes.router)
    handlers.install(app)
    app.add_middleware(UploadLimit, max_bytes=settings.max_upload_bytes)
    app.add_middleware(Linger)
    app.add_middleware(Observe, metrics=own_metrics)
    app.add_middleware(HeadAsGet)
    return app


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
