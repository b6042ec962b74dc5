"""``nnpm health``: for the health checks of containers."""

import argparse
import http.client
import sys
import time
from pathlib import Path

from .. import settings
from ..command import UsageError

TIMEOUT_S = 4.0
OLDEST_S = 30.0
"""A worker touches its heartbeat file every few seconds; an older file means that it is dead."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--heartbeat", type=Path, metavar="FILE", help="check this file of a worker instead"
    )


def run(args: argparse.Namespace) -> int:
    """Check that the service on this machine is ready, or that a worker's heartbeat is recent."""
    if args.heartbeat is not None:
        try:
            age_s = time.time() - args.heartbeat.stat().st_mtime
        except OSError as error:
            raise UsageError(f"heartbeat file {args.heartbeat}: {error.strerror}") from None
        if age_s > OLDEST_S:
            raise UsageError(
                f"the heartbeat is {age_s:.0f} s old; it must be at most {OLDEST_S:.0f} s old"
            )
        sys.stdout.write("The worker is alive.\n")
        return 0
    own = settings.load()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(own.host, own.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, own.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UsageError(f"no service answers on {host} port {own.port}: {error}") from None
    finally:
        connection.close()
    if status != 200:
        raise UsageError(f"the service is not ready: it answers {status} instead of 200")
    sys.stdout.write("The service is ready.\n")
    return 0
