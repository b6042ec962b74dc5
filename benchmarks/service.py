"""A service process as users start it: its address, the time it takes, what it uses.

Linux only: memory and CPU time are read from /proc.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.provenance import ROOT

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SERVE = ("-c", "import sys; from nnpm.service.cli import main; sys.exit(main(['serve']))")
"""Arguments of Python that start the service; ``NNPM_PORT`` and other settings are variables."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is ready.

    Attributes:
        pid: of its process.
        port: on 127.0.0.1.
        ready_s: from the start of the process to the first answer of ``/health/ready``.
    """

    pid: int
    port: int
    ready_s: float

    @property
    def address(self) -> str:
        """URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    def post(self, clip: bytes) -> None:
        """Send one WAV file as a raw body to ``/predict``, and wait for the answer."""
        headers = {"Content-Type": "audio/wav"}
        request = urllib.request.Request(f"{self.address}/predict", data=clip, headers=headers)
        with urllib.request.urlopen(request) as answer:
            answer.read()

    def resident_mib(self) -> float:
        """Resident memory now."""
        return memory_mib(self.pid, "VmRSS")

    def peak_mib(self) -> float:
        """The highest resident memory so far."""
        return memory_mib(self.pid, "VmHWM")

    def cpu_s(self) -> float:
        """CPU time so far, in all threads."""
        return cpu_s(self.pid)


@contextmanager
def running_service(
    settings: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[Service]:
    """Start a service with the bundled model and wait until it is ready; stop it at the end.

    Args:
        settings: environment variables beside those of this process.
        log: file for its output; None throws it away.

    Raises:
        RuntimeError: if the service ends before it is ready.
    """
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **(settings or {}),
        "NNPM_PORT": str(port),
    }
    with (log or Path(os.devnull)).open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *SERVE], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        try:
            _wait_until_ready(process, port)
            yield Service(process.pid, port, time.perf_counter() - start)
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready").close()
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                raise RuntimeError(f"the service ended with {process.returncode}") from None
            time.sleep(0.005)
        else:
            return


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def memory_mib(pid: int, field: str) -> float:
    """A field of /proc/PID/status: VmRSS, the resident memory now, or VmHWM, its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, in all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S
