"""Replicas of the HTTP service on Ray Serve: ``serve run nnpm.scale:app``."""

import os
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from .. import settings
from ..api.app import create_app
from ..registry.opening import open_registry, seed_registry
from ..settings import Settings
from ..system import steady_memory
from .cluster import require_ray

if TYPE_CHECKING:
    from ray.serve import Application

NAME = "nnpm"

AUTOSCALING: dict[str, Any] = {
    "min_replicas": 1,
    "max_replicas": 64,
    # One is scored and one waits: the thread of a replica is never idle, and no queue builds up.
    "target_ongoing_requests": 2,
    "upscale_delay_s": 5,
    "downscale_delay_s": 300,
}
"""A configuration file of Ray Serve overrides these, and num_cpus: docs/operate/scale.md."""

_MAX_ONGOING = 32
_GRACE_S = 30


def application(**options: Any) -> "Application":
    """Make what ``serve run`` runs.

    Args:
        **options: of the deployment, in place of ours.

    Raises:
        ExtraMissingError: if Ray is not installed.
    """
    require_ray()
    from ray import serve

    ours: dict[str, Any] = {
        "name": NAME,
        "autoscaling_config": AUTOSCALING,
        "max_ongoing_requests": _MAX_ONGOING,
        "graceful_shutdown_timeout_s": _GRACE_S,
        "ray_actor_options": {"num_cpus": 1},
    }
    deployed: Any = serve.deployment(serve.ingress(replica_app)(), **(ours | options))
    bound: Application = deployed.bind()
    return bound


def replica_app() -> FastAPI:
    """Make the app of one replica, with its model loaded; Ray Serve calls this there.

    Raises:
        SettingsError: if a setting is invalid, or whoever reaches Serve's proxies needs no key.
        BundleError: if the default model cannot be loaded.
    """
    import ray

    steady_memory()
    given: dict[str, float] = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    cpus = given.get("CPU", 1)
    own = replica_settings(max(1, int(cpus)), _proxy_host())
    if own.bundled is not None:
        seed_registry(open_registry(own), own.bundled)
    app = create_app(own)
    services = app.state.services
    services.serving.choose()
    services.readiness.ready = True
    return app


def replica_settings(cpus: int, host: str) -> Settings:
    """Read the settings of a replica.

    Args:
        cpus: that Ray gives it; its threads, unless NNPM_WORKERS says another number.
        host: that Serve's proxies listen on.

    Raises:
        SettingsError: if one is invalid.
    """
    given = {
        "host": host,
        "workers": None if "NNPM_WORKERS" in os.environ else cpus,
        # A replica may be gone before an adaptation ends; `nnpm worker` runs them.
        "adapt_workers": None if "NNPM_ADAPT_WORKERS" in os.environ else 0,
    }
    return settings.load(**given)


def _proxy_host() -> str:
    """The address that Serve's proxies listen on; all, where it cannot be learnt."""
    try:
        from ray.serve.context import _get_global_client

        client: Any = _get_global_client()
        return str(client.http_config.host)
    except Exception:  # private to Ray, and so may change
        return "0.0.0.0"  # noqa: S104 - what the settings are to guard against
