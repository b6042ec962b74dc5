"""A Ray cluster: one that runs somewhere, or one that is started on this machine."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..command import UsageError
from ..inference.errors import ExtraMissingError, NnpmError
from ..system import available_cores

_STORE_BYTES = 256 << 20


def require_ray() -> None:
    """Check that Ray is installed, without a word of its own.

    Raises:
        ExtraMissingError: if it is not.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ExtraMissingError(
            "Ray is not installed; install the extra 'scale': pip install 'nnpm[scale]'."
        ) from None


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[int]:
    """Connect to a cluster, or start one here, until the block ends; give how many may work."""
    # Its core says at the level of errors what is none: arguments of actors in its object store.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    given: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is not None:
        _require_reachable(address)
        given |= {"address": address}
    elif not ray.is_initialized():
        given |= {
            "num_cpus": workers or available_cores(),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    try:
        started = None if ray.is_initialized() else ray.init(**given)
    except Exception as error:  # Ray raises plain ones, if a machine is too busy to start it
        raise UsageError(
            f"The Ray cluster at {address or 'this machine'} cannot be used: "
            f"{str(error).splitlines()[0][:200]}"
        ) from None
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cores = max(1, int(resources.get("CPU", 1)))
        yield min(workers or cores, cores)
    finally:
        if started is not None:
            ray.shutdown()


def _require_reachable(address: str) -> None:
    """See that a cluster listens; Ray itself tries for minutes.

    Raises:
        UsageError: if it does not.
    """
    host, colon, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if not (colon and port.isdecimal()):
        return  # auto, or whatever else Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"There is no Ray cluster at {address[:200]}: "
            f"{getattr(error, 'strerror', None) or error}."
        ) from None


def own_error(error: BaseException) -> NnpmError:
    """Find our own error in what Ray wraps around it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, NnpmError):
            return cause
        seen.add(id(cause))
        cause = getattr(cause, "cause", None) or cause.__cause__
    return NnpmError(f"Ray gave up: {type(error).__name__}: {str(error).strip()[-300:]}")
