"""``nnpm serve``: the HTTP service."""

import argparse
import gc
import logging
import resource
import signal
import socket
import sys

import uvicorn

from .. import environment, logs, settings
from ..api.app import create_app
from ..api.server import MAX_HEAD_BYTES, protocol, uvicorn_options
from ..command import UsageError
from ..registry.opening import open_to_serve
from ..registry.registry import UnknownModelError
from ..system import return_memory, steady_memory

log = logging.getLogger("nnpm")

SHUTDOWN_S = 30
"""Longest time that requests in progress may delay the end of the process."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--host", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", help="port to listen on [8000]; 0 takes a free one")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    steady_memory()
    own = settings.load(host=args.host, port=args.port)
    logs.configure(own.log_format, own.log_level)
    environment.warn_of_unknown()
    registry = open_to_serve(own)
    try:
        registry.resolve()
    except UnknownModelError as error:
        raise UsageError(
            f"{error} The models folder is {own.models}; NNPM_MODELS sets another."
        ) from None

    if own.is_open:
        log.warning(
            "Whoever reaches %s can use the service, for there are no keys (NNPM_INSECURE=1): "
            "publish a container on 127.0.0.1 alone, or make keys (NNPM_API_KEYS_FILE).",
            own.host,
        )

    def be_ready() -> None:
        # Going through all objects loaded so far takes 85 ms, during which no request is answered.
        gc.collect()
        gc.freeze()
        return_memory()
        host, port = f"[{own.host}]" if ":" in own.host else own.host, listener.getsockname()[1]
        with_key = " -H 'Authorization: Bearer KEY'" if own.api_keys_file else ""
        log.info(
            "Ready. Send a clip:  curl -F file=@clip.wav http://%s:%d/predict%s",
            host,
            port,
            with_key,
        )

    app = create_app(own, on_ready=be_ready)
    _allow_files(own.max_connections)
    listener = _listen(own.host, own.port)
    config = uvicorn.Config(
        app,
        log_config=None,
        http=protocol(own),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        **uvicorn_options(own),
    )
    # uvicorn raises the signal again once all requests are answered; it must not kill the process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _allow_files(num_connections: int) -> None:
    """Raise the soft limit of open files so that connections do not use them up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * num_connections + 512  # an upload may hold a temporary file as well
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}; set another port with --port."
        ) from None
