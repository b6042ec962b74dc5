"""``nnpm serve``."""

import argparse
import copy
import socket
import sys

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from service import settings
from service.api.app import create_app
from service.api.websocket import uvicorn_options
from service.cli import UsageError
from service.registry.opening import open_registry
from service.registry.registry import UnknownModelError
from service.registry.seed import seed

SHUTDOWN_S = 30
"""How long requests under way, stalled uploads among them, may delay the end of the process."""


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    own = settings.load(host=args.host, port=args.port)
    registry = open_registry(own)
    if own.bundled is not None:
        seed(registry, own.bundled)
    try:
        registry.resolve()
    except UnknownModelError as error:
        raise UsageError(f"{error} Looked in {own.models}; NNPM_MODELS names the folder.") from None
    listener = _listen(own.host, own.port)
    port = listener.getsockname()[1]
    host = f"[{own.host}]" if ":" in own.host else own.host

    def say_how() -> None:
        sys.stderr.write(
            f"Ready. Send a clip:  curl -F file=@clip.wav http://{host}:{port}/predict\n"
        )

    logging = copy.deepcopy(LOGGING_CONFIG)
    logging["loggers"]["nnpm"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    logging["loggers"]["python_multipart"] = {"level": "ERROR"}  # bad forms are the client's news
    config = uvicorn.Config(
        create_app(own, on_ready=say_how),
        log_config=logging,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        **uvicorn_options(own),
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port."
        ) from None
