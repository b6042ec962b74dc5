"""``nnpm serve`` as a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_READY = re.compile(r"curl -F file=@clip.wav http://([\w.]+):(\d+)/predict")


@dataclass
class Server:
    """A service that is ready.

    Attributes:
        process: still running.
        host: that it listens on.
        port: that it listens on.
        log: file that its standard error goes to.
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
    """Start it, wait until it is ready, and end it; ``before`` is code that it runs first."""
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
