import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = """
import sys
from service.api import connection
from service.cli import main, serve
serve.SHUTDOWN_S = 1
connection.WRITE_TIMEOUT_S = 1
sys.exit(main())
"""
READY = re.compile(r"clip.wav http://([\d.]+):(\d+)/predict")


@dataclass
class Process:
    """``nnpm serve`` as a process of its own."""

    process: "subprocess.Popen[str]"
    host: str
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def rss_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found
        return int(found[1]) / 1024


@pytest.fixture
def start_server(models: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start ``nnpm serve`` with these settings, less patient at its end and with slow readers."""
    started: list[subprocess.Popen[str]] = []

    def start(**settings: object) -> Process:
        given = {f"NNPM_{name.upper()}": str(value) for name, value in settings.items()}
        log = tmp_path / f"log-{len(started)}"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "serve", "--port", "0"],
                env={**os.environ, "NNPM_MODELS": str(models), "TMPDIR": str(tmp_path), **given},
                stderr=stderr,
                text=True,
            )
        started.append(process)
        while not (found := READY.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        return Process(process, found[1], int(found[2]), log)

    yield start
    for process in started:
        process.kill()
        process.wait()
