"""A service on a real socket, on a thread of the test's process, as ``nnpm serve`` sets it up."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from nnpm.service.api.app import create_app
from nnpm.service.api.server import uvicorn_options
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.registry.serving import load_recognizer
from nnpm.service.settings import Settings


@contextlib.contextmanager
def live(
    settings: Settings,
    *,
    load: Callable[[Path], Recognizer] = load_recognizer,
    send_buffer_bytes: int | None = None,
) -> Iterator[tuple[str, FastAPI]]:
    """Serve on a free port until the block ends; give host:port and the app once it is ready."""
    ready = threading.Event()
    app = create_app(settings, load=load, on_ready=ready.set)
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer_bytes is not None:  # which connections inherit
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, **uvicorn_options(settings))
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(10)
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
