"""One adaptation job in a process of its own: ``python -m training adapt --job DIR``.

The folder is all that it shares with who started it (``service/jobs/layout.py`` has the same
names): request.json in; progress.json, report.json or error.json, and the bundle out/.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ...service.inference.errors import NnpmError
from ..config import TrainingError

_SHARES = {
    "listen": ("adapting", 0.0, 0.5),
    "adapt": ("adapting", 0.5, 0.9),
    "judge": ("evaluating", 0.9, 0.93),
    "publish": ("evaluating", 0.93, 1.0),
}
"""State of the job, and the part of the whole, by stage."""

_WRITE_EVERY_S = 0.2


class JobRequest(BaseModel):
    """What stands in request.json."""

    model_config = ConfigDict(extra="forbid")

    bundle: Path
    target: Path
    out: Path
    method: str
    language: str
    seed: int
    force: bool
    threads: int
    min_clips: int


def run_job(folder: Path) -> None:
    """Do the job of a folder.

    The lock child.lock is held until the process ends, so that no second one works on the job.

    Raises:
        TrainingError: if another process has the job, or the request cannot be read.
        NnpmError: whatever adaptation refuses; error.json says it as well.
        OSError: of a full disk and the like; error.json says it as well.
    """
    # As Ctrl-C does, so that what is half-written is removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _alone(folder):
        (folder / "error.json").unlink(missing_ok=True)
        asked = _read(folder)
        try:
            _adapt(folder, asked)
        except NnpmError as error:
            # For whoever sent the recordings: where they lie on this machine is not theirs to know.
            detail = str(error).replace(str(asked.target), "the folder")
            detail = detail.replace(str(asked.bundle), "the base")
            _write(folder / "error.json", {"detail": detail, "errno": None})
            raise
        except OSError as error:
            told = {"detail": error.strerror or str(error), "errno": error.errno}
            _write(folder / "error.json", told)
            raise


def _read(folder: Path) -> JobRequest:
    try:
        return JobRequest.model_validate_json((folder / "request.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError(f"{folder / 'request.json'} cannot be read: {error}") from None


def _adapt(folder: Path, asked: JobRequest) -> None:
    from . import command
    from . import contract as config

    shutil.rmtree(asked.out, ignore_errors=True)  # of an earlier try, which died
    request = command.Request(
        bundle=asked.bundle,
        target=asked.target,
        out=asked.out,
        method=asked.method,
        language=asked.language,
        seed=asked.seed,
        config=config.load(config.DEFAULT).model_copy(update={"min_clips": asked.min_clips}),
        threads=asked.threads,
        force=asked.force,
    )
    report = command.adapt(request, _Progress(folder / "progress.json"))
    _write(folder / "report.json", report.model_dump(mode="json"))


class _Progress:
    """Writes how far the job is, now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stage = ""
        self._written = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        moment = time.monotonic()
        if stage == self._stage and moment - self._written < _WRITE_EVERY_S:
            return
        self._stage, self._written = stage, moment
        state, start, end = _SHARES.get(stage, ("adapting", 0.0, 0.0))
        progress = start + (end - start) * (done / total if total else 0.0)
        told = {"state": state, "stage": stage, "done": done, "total": total, "progress": progress}
        _write(self._path, told)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder / "child.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"another process is at work on {folder}") from None
        os.ftruncate(handle, 0)
        os.pwrite(
            handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0
        )
        yield
    finally:
        os.close(handle)


def _write(path: Path, told: Mapping[str, Any]) -> None:
    """Replace a small file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(told, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
