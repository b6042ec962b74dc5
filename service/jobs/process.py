"""The child process that adapts: start it, watch it, stop it, or find one that runs already."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..files import is_locked
from .folder import JobFolder, read_json

COMMAND = (sys.executable, "-P", "-m", "nnpm.training", "adapt", "--job")
_GRACE_S = 0.4
"""Time between SIGTERM and SIGKILL."""
_STEP_S = 0.02
_AUTOGROUP_TRIES = 10


class Child:
    """The process that works on one job; this worker or an earlier one may have started it.

    The process holds the lock child.lock until it ends, on any machine: a worker that finds the
    file locked watches that process instead of starting another.

    Args:
        folder: the job's folder.
        command: starts the process; the folder is added as last argument.
    """

    def __init__(self, folder: JobFolder, command: Sequence[str] = COMMAND) -> None:
        self._folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, threads: int, nice: int = 0) -> None:
        """Start the process, in a session of its own.

        Args:
            threads: number of threads for its computations.
            nice: how much lower its priority is than that of this process, 0 to 19.

        Raises:
            OSError: if the process cannot be started.
        """
        limits = {
            name: str(threads)
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        with self._folder.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*self._command, str(self._folder.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **limits},
                start_new_session=True,
            )
        _lower_priority(self._process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))

    def alive(self) -> bool:
        """Whether a process works on the job: ours, or one that an earlier worker started."""
        if self._process is not None and self._process.poll() is None:
            return True
        return is_locked(self._folder.lock)

    def stop(self) -> None:
        """End the process, and all processes that it started, within a second.

        A child on another machine goes on: the worker there ends it.
        """
        pid = self._pid()
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if pid is None or not self.alive():
                break
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signum)
            deadline = time.monotonic() + _GRACE_S
            while self.alive() and time.monotonic() < deadline:
                time.sleep(_STEP_S)
        if self._process is not None:
            self._process.wait()

    def stop_own(self) -> None:
        """End the process if this worker started it."""
        if self._process is not None:
            self.stop()

    def exit_reason(self) -> str:
        """Describe in a sentence how the process ended."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return "The adaptation process has disappeared."
        if code < 0:
            return f"The adaptation process was ended by signal {-code}."
        return f"The adaptation process ended with code {code}."

    def _pid(self) -> int | None:
        if self._process is not None:
            return self._process.pid
        holder = read_json(self._folder.lock) or {}
        here = holder.get("host") == socket.gethostname()
        return int(holder["pid"]) if here and isinstance(holder.get("pid"), int) else None


def _lower_priority(pid: int, nice: int) -> None:
    """Lower the priority of a process that leads a session.

    Where Linux groups processes by session (autogroup), a nice value counts within the session
    only, and sessions share the cores evenly: the session's own value is lowered as well.
    """
    with contextlib.suppress(OSError):  # it has ended, or this kernel has no autogroup
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        for _ in range(_AUTOGROUP_TRIES):  # Linux accepts ten such changes a second
            try:
                Path(f"/proc/{pid}/autogroup").write_text(str(nice))
            except BlockingIOError:
                time.sleep(_STEP_S)
            else:
                return
