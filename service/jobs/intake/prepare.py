"""The audio of a job as a folder, whole or not at all."""

import shutil
from pathlib import Path

from service.jobs.intake.archive import IntakeLimits, unpack
from service.jobs.intake.errors import ArchiveError
from service.jobs.intake.folder import allowed_folder
from service.jobs.job import Job
from service.jobs.layout import JobFolder
from service.settings import Settings

FOLDER, ARCHIVE, FILES = "folder:", "archive", "files"
"""What ``Job.source`` begins with, by the way that the audio came."""


def prepare(job: Job, folder: JobFolder, settings: Settings) -> Path:
    """Unpack what was handed over; what an earlier try has done is not done again.

    Returns:
        The folder to adapt to.

    Raises:
        IntakeError: if it cannot be used.
        OSError: if the job's folder cannot be written.
    """
    if job.source.startswith(FOLDER):
        return allowed_folder(job.source.removeprefix(FOLDER), settings.adapt_roots)
    if job.source == FILES:
        return folder.upload
    if folder.target.exists():
        return folder.target
    coming = folder.path / ".target"
    shutil.rmtree(coming, ignore_errors=True)
    limits = IntakeLimits(
        settings.adapt_max_members, settings.adapt_max_unpacked_bytes, settings.adapt_max_ratio
    )
    archive = next((path for path in folder.upload.glob("*") if path.is_file()), None)
    if archive is None:
        raise ArchiveError("The uploaded archive is gone; send it again.")
    try:
        unpack(archive, coming, limits)
        coming.rename(folder.target)
    except BaseException:
        shutil.rmtree(coming, ignore_errors=True)
        raise
    return folder.target
