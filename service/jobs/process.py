"""The child process that adapts: started, watched, stopped, or found again."""

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
"""Between asking a child to end and ending it."""
_STEP_S = 0.02
_AUTOGROUP_TRIES = 10


class Child:
    """The process that works on one job, whoever started it.

    It holds a lock on child.lock for its life, wherever it runs: so a worker that finds the lock
    taken watches that process instead of starting another.

    Args:
        folder: of the job.
        command: takes the folder as its last argument.
    """

    def __init__(self, folder: JobFolder, command: Sequence[str] = COMMAND) -> None:
        self._folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, threads: int, nice: int = 0) -> None:
        """Start it, in a session of its own.

        Args:
            threads: that it may compute with.
            nice: how far it stands back behind this process, 0 to 19.

        Raises:
            OSError: if it cannot be started.
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
        _stand_back(self._process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))

    def alive(self) -> bool:
        """Whether a process works on the job: ours, or one of a worker that is gone."""
        if self._process is not None and self._process.poll() is None:
            return True
        return is_locked(self._folder.lock)

    def stop(self) -> None:
        """End it within a second, and everything that it started.

        A child on another machine is left alone: its own worker ends it.
        """
        pid = self._pid()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if pid is None or not self.alive():
                break
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, sign)
            deadline = time.monotonic() + _GRACE_S
            while self.alive() and time.monotonic() < deadline:
                time.sleep(_STEP_S)
        if self._process is not None:
            self._process.wait()

    def stop_own(self) -> None:
        """End it if this worker started it; one that was found at work is another's."""
        if self._process is not None:
            self.stop()

    def how_it_ended(self) -> str:
        """Say how a child of ours ended, for people."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return "The adaptation process is gone."
        if code < 0:
            return f"The adaptation process was ended by signal {-code}."
        return f"The adaptation process ended with code {code}."

    def _pid(self) -> int | None:
        if self._process is not None:
            return self._process.pid
        holder = read_json(self._folder.lock) or {}
        here = holder.get("host") == socket.gethostname()
        return int(holder["pid"]) if here and isinstance(holder.get("pid"), int) else None


def _stand_back(pid: int, nice: int) -> None:
    """Lower the priority of a process that leads a session.

    Where Linux groups processes by session (autogroup), a nice value counts within the session
    only, and sessions share the cores evenly: the session's own value is lowered as well.
    """
    with contextlib.suppress(OSError):  # it has ended, or there are no such groups here
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        for _ in range(_AUTOGROUP_TRIES):  # Linux takes ten such values a second, of all users
            try:
                Path(f"/proc/{pid}/autogroup").write_text(str(nice))
            except BlockingIOError:
                time.sleep(_STEP_S)
            else:
                return
