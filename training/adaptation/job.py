"""One adaptation job in a process of its own: ``python -m nnpm.training adapt --job DIR``.

The child shares only the job's folder with the worker that starts it: it reads request.json, and
writes progress.json, report.json or error.json, and the bundle out/.
"""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ...service.files import lock
from ...service.inference.errors import NnpmError, ParameterError
from ...service.jobs.folder import (
    AdaptationTask,
    EvaluationTask,
    JobFolder,
    read_request,
    write_json,
)
from ..errors import TrainingError

_SHARES = {
    "listen": ("adapting", 0.0, 0.5),
    "adapt": ("adapting", 0.5, 0.9),
    "judge": ("evaluating", 0.9, 0.93),
    "publish": ("evaluating", 0.93, 1.0),
}
"""For each stage: the job's state, and where the stage begins and ends in the whole."""

_WRITE_EVERY_S = 0.2

Progress = Callable[[str, int, int], None]
Evaluate = Callable[[EvaluationTask, Progress], dict[str, Any]]
"""Carries out an evaluation, and gives its report."""


def run_job(path: Path, evaluate: Evaluate) -> None:
    """Carry out the job of a folder: an adaptation or an evaluation.

    The lock child.lock is held until the process ends, so that no other process works on the job.

    Raises:
        TrainingError: if another process has the job, or the request cannot be read.
        NnpmError: any reason that the adaptation gives; error.json holds it as well.
        OSError: a full disk, for example; error.json holds it as well.
    """
    # As Ctrl-C does, so that what is half-written is removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    path = path.resolve()
    folder = JobFolder(path.parent, path.name)
    with _exclusive(folder):
        folder.error.unlink(missing_ok=True)
        task = _read(folder)
        try:
            if isinstance(task, EvaluationTask):
                report = evaluate(task, _Progress(folder.progress))
                write_json(folder.report, report)
            else:
                _adapt(folder, task)
        except NnpmError as error:
            # Whoever sent the recordings need not know where they lie on this machine.
            detail = str(error).replace(str(folder.labels), "the labels")
            detail = detail.replace(str(task.target), "the folder")
            detail = detail.replace(str(task.bundle), "the base")
            write_json(folder.error, {"detail": detail, "errno": None})
            raise
        except OSError as error:
            detail = error.strerror or str(error)
            write_json(folder.error, {"detail": detail, "errno": error.errno})
            raise


def _read(folder: JobFolder) -> AdaptationTask | EvaluationTask:
    try:
        document = json.loads(folder.request.read_bytes())
        if isinstance(document, dict) and document.get("kind") == "evaluate":
            return read_request(EvaluationTask, document)
        return read_request(AdaptationTask, document)
    except (OSError, ValueError, ParameterError) as error:
        raise TrainingError(f"{folder.request} cannot be read: {error}") from None


def _adapt(folder: JobFolder, task: AdaptationTask) -> None:
    from . import command, config

    shutil.rmtree(task.out, ignore_errors=True)  # left by an earlier try that died
    numbers = config.load(config.DEFAULT)
    if task.min_clips is not None:
        numbers = numbers.model_copy(update={"min_clips": task.min_clips})
    report = command.adapt(task, numbers, _Progress(folder.progress))
    write_json(folder.report, report.model_dump(mode="json"))


class _Progress:
    """Writes the progress of the job to a file, a few times a second."""

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
        found = {"state": state, "stage": stage, "done": done, "total": total, "progress": progress}
        write_json(self._path, found)


@contextmanager
def _exclusive(folder: JobFolder) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(lock(folder.lock, wait=False))
        except BlockingIOError:
            raise TrainingError(f"another process is at work on {folder.path}") from None
        os.ftruncate(handle, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        os.pwrite(handle, json.dumps(holder).encode(), 0)
        yield
