"""The audio of a job as a folder, whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

from service.jobs.intake.archive import IntakeLimits, unpack
from service.jobs.intake.errors import ArchiveError
from service.jobs.intake.folder import allowed_folder
from service.jobs.job import Job
from service.jobs.layout import JobFolder
from service.settings import Settings

FOLDER, ARCHIVE, FILES = "folder:", "archive", "files"
"""What ``Job.source`` begins with, by the way that the audio came."""


def prepare(job: Job, folder: JobFolder, settings: Settings, go_on: Callable[[], None]) -> Path:
    """Unpack what was handed over.

    Each try unpacks anew, into a folder of its claim's own: what an earlier one left may be half
    written, and its worker may only be slow.

    Args:
        job: as claimed.
        folder: of the job.
        settings: limits, and the folders that are allowed.
        go_on: called every now and then; what it raises ends the work.

    Returns:
        The folder to adapt to.

    Raises:
        IntakeError: if it cannot be used.
        OSError: if the job's folder cannot be written.
    """
    go_on()
    if job.source.startswith(FOLDER):
        return allowed_folder(job.source.removeprefix(FOLDER), settings.adapt_roots)
    if job.source == FILES:
        return folder.upload
    archive = next((path for path in folder.upload.glob("*") if path.is_file()), None)
    if archive is None:
        raise ArchiveError("The uploaded archive is gone; send it again.")
    for old in folder.target.glob("*"):
        if int(old.name) < job.token:
            shutil.rmtree(old, ignore_errors=True)
    target = folder.target / str(job.token)
    limits = IntakeLimits(
        settings.adapt_max_members, settings.adapt_max_unpacked_bytes, settings.adapt_max_ratio
    )
    try:
        unpack(archive, target, limits, go_on)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target
