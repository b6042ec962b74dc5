"""``nnpm worker``: adapts for services whose jobs it shares."""

import argparse
import logging
import signal
import threading

from .. import logs, settings
from ..jobs.service import JobService, can_adapt
from ..registry.opening import open_registry, seed_registry
from . import UsageError

log = logging.getLogger("nnpm")

BEAT_S = 5.0
"""How often the heartbeat file is renewed."""


def run(args: argparse.Namespace) -> int:
    """Take jobs until asked to end; the one under way then goes back into the queue."""
    own = settings.load(adapt_workers=args.workers)
    if not can_adapt():
        raise UsageError(
            "a worker needs torch, which is not installed: pip install '.[train]' in the checkout"
        )
    logs.configure(own.log_format, own.log_level)
    registry = open_registry(own)
    if own.bundled is not None:
        seed_registry(registry, own.bundled)
    office = JobService(
        own.model_copy(update={"adapt_workers": max(1, own.adapt_workers)}), registry
    )
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    office.start()
    log.info("Ready. Waiting for jobs.")
    while True:
        if args.heartbeat is not None and office.alive:
            args.heartbeat.touch()
        if ended.wait(BEAT_S):
            break
    office.stop()
    return 0
