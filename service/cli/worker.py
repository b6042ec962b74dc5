"""``nnpm worker``: runs the adaptation jobs of services that share its database and models."""

import argparse
import logging
import signal
import threading
from pathlib import Path

from .. import environment, logs, settings
from ..api.routes.adapt import describe_job
from ..command import UsageError
from ..jobs.service import JobService, can_adapt
from ..registry.opening import open_registry, seed_registry
from ..scale import fleet

log = logging.getLogger("nnpm")

BEAT_S = 5.0
"""Time between two touches of the heartbeat file."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--workers", type=int, metavar="N", help="jobs at a time [1]")
    parser.add_argument(
        "--heartbeat", type=Path, metavar="FILE", help="file to touch while the workers run"
    )
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="where to run [local]"
    )
    parser.add_argument("--address", help="Ray cluster to run on [one started on this machine]")


def run(args: argparse.Namespace) -> int:
    """Run jobs until a signal to end; the job in progress then goes back into the queue."""
    own = settings.load(adapt_workers=args.workers)
    if not can_adapt():
        raise UsageError(
            "a worker needs the extra 'adapt', which is not installed: pip install 'nnpm[adapt]'"
        )
    logs.configure(own.log_format, own.log_level)
    environment.warn_of_unknown()
    registry = open_registry(own)
    if own.bundled is not None:
        seed_registry(registry, own.bundled)
    own = own.model_copy(update={"adapt_workers": max(1, own.adapt_workers)})
    if args.engine == "ray":
        return fleet.run(args, own)
    jobs = JobService(own, registry, describe=describe_job)
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    jobs.start()
    log.info("Ready. Waiting for jobs.")
    while True:
        if args.heartbeat is not None and jobs.alive:
            args.heartbeat.touch()
        if ended.wait(BEAT_S):
            break
    jobs.stop()
    return 0
