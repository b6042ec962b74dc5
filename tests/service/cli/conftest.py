import os
import re
import subprocess
import sys
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
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            assert process.stderr is not None
            for line in process.stderr:
                stderr.write(line)
                if found := re.search(r"clip.wav http://([\d.]+):(\d+)/predict", line):
                    return Process(process, found[1], int(found[2]), log)
        pytest.fail(f"it never said that it is ready: {log.read_text()}")

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
