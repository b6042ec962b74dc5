import contextlib
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
    """``nnpm serve`` as a process of its own, on 127.0.0.1."""

    process: "subprocess.Popen[str]"
    port: int
    folder: Path
    """For its temporary files."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rss_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found
        return int(found[1]) / 1024


@contextlib.contextmanager
def served(models: Path, folder: Path, **settings: object) -> Iterator[Process]:
    """``nnpm serve`` with these settings, less patient at its end and with who does not read."""
    given = {f"NNPM_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--port", "0"],
        env={**os.environ, "NNPM_MODELS": str(models), "TMPDIR": str(folder), **given},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"clip.wav http://127.0.0.1:(\d+)/predict", line):
                yield Process(process, int(found[1]), folder)
                return
        pytest.fail(f"it never said that it is ready: {said}")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def start_server(models: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a server of the test's own with these settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(served(models, tmp_path, **settings))
