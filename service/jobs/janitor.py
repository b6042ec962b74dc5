"""Removes what nobody needs any more from the folder of jobs."""

import logging
import threading
import time
from pathlib import Path

from service.inference.errors import NnpmError
from service.jobs.errors import UnknownJobError
from service.jobs.layout import JobFolder
from service.jobs.runner import Child
from service.jobs.store import JobStore

EVERY_S = 600.0
_ORPHAN_S = 3600.0
"""A folder without a job may belong to an upload under way, for so long."""

log = logging.getLogger("nnpm")


def sweep(root: Path, store: JobStore, *, orphan_s: float = _ORPHAN_S) -> None:
    """Remove the audio of ended jobs, and folders that belong to no job; reports stay.

    Raises:
        StoreUnavailableError: if the database is away: then nothing is removed.
    """
    if not root.is_dir():
        return
    for path in root.iterdir():
        if not (path.is_dir() and path.name.isalnum()):
            continue
        folder = JobFolder(root, path.name)
        try:
            if store.get(path.name).ended and not Child(folder).alive():
                folder.remove_work()
        except UnknownJobError:
            try:
                old = time.time() - path.stat().st_mtime > orphan_s
            except FileNotFoundError:
                continue
            if old and not Child(folder).alive():
                folder.remove()


def run(root: Path, store: JobStore, stop: threading.Event) -> None:
    """Sweep now and every ten minutes until ``stop`` is set."""
    while True:
        try:
            sweep(root, store)
        except (NnpmError, OSError) as error:
            log.warning("the folder of jobs was not swept: %s", error)
        if stop.wait(EVERY_S):
            return
