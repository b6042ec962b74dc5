"""Services under test: in this process, on a thread with a real socket, as a process of its own."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from nnpm.service.api.app import create_app
from nnpm.service.api.server import uvicorn_options
from nnpm.service.inference import bundle
from nnpm.service.inference.answer import Answer, Options
from nnpm.service.inference.audio.waveform import Recording
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.jobs.process import COMMAND
from nnpm.service.registry.serving import load_recognizer
from nnpm.service.settings import Settings

_READY = re.compile(r"curl -F file=@clip.wav http://([\w.]+):(\d+)/predict")


def wait_until_ready(client: TestClient, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline, client.get("/health/ready").text
        time.sleep(0.01)


class Hook:
    """Called before every answer; a test may make it wait or raise."""

    def __init__(self) -> None:
        self.before: Callable[[Recording], object] = lambda _: None

    def load(self, path: Path) -> Recognizer:
        return _Hooked(path, self)


class _Hooked(Recognizer):
    def __init__(self, path: Path, hook: Hook) -> None:
        super().__init__(bundle.load(path))
        self._hook = hook

    def answer(self, recording: Recording, options: Options = Options()) -> Answer:  # noqa: B008
        self._hook.before(recording)
        return super().answer(recording, options)


@contextlib.contextmanager
def live(
    settings: Settings,
    *,
    load: Callable[[Path], Recognizer] = load_recognizer,
    adapt_command: Sequence[str] = COMMAND,
    send_buffer_bytes: int | None = None,
) -> Iterator[tuple[str, FastAPI]]:
    """Serve on a free port until the block ends; give host:port and the app once it is ready."""
    ready = threading.Event()
    app = create_app(settings, load=load, adapt_command=adapt_command, on_ready=ready.set)
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


@dataclass
class Server:
    """A running ``nnpm serve`` that is ready.

    Attributes:
        process: of the service.
        host: address that it listens on.
        port: that it listens on.
        log: file with its standard error.
    """

    process: "subprocess.Popen[bytes]"
    host: str
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def serving(models: Path, folder: Path, before: str = "", **environment: str) -> Iterator[Server]:
    """Run ``nnpm serve`` until the block ends; ``before`` is code that the process runs first."""
    log = folder / "serve.log"
    code = f"{before}\nimport sys; from nnpm.service.cli import main; sys.exit(main())"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", "0"],
            env={**os.environ, "NNPM_MODELS": str(models), "TMPDIR": str(folder), **environment},
            stderr=file,
        )
    try:
        while not (found := _READY.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield Server(process, found[1], int(found[2]), log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
