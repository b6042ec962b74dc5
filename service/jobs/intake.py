"""A folder of the server's that a request names.

The audio of a job as a folder, whole or not at all.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from ..settings import Settings
from .archive import IntakeLimits, unpack
from .errors import ArchiveError, FolderRefusedError
from .folder import JobFolder
from .job import Job


def allowed_folder(text: str, roots: Iterable[Path]) -> Path:
    """Find a folder under one of the allowed ones, where symbolic links really lead.

    Whether it is there is told only of folders that are allowed.

    Raises:
        FolderRefusedError: if it is not allowed, or no folder that can be read.
    """
    allowed = [root.resolve() for root in roots]
    if not allowed:
        raise FolderRefusedError(
            "This service takes no folders: NNPM_ADAPT_ROOTS names none. Send an archive or files."
        )
    try:
        folder = Path(text).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links; a NUL in the name
        raise FolderRefusedError("The folder's name cannot be one.") from None
    if not Path(text).is_absolute() or not any(folder.is_relative_to(root) for root in allowed):
        raise FolderRefusedError(
            "The folder is not under one that NNPM_ADAPT_ROOTS allows; an absolute path is wanted."
        )
    try:
        if not folder.is_dir():
            raise FolderRefusedError("There is no such folder.")
        next(folder.iterdir(), None)
    except OSError:
        raise FolderRefusedError("The service may not read this folder.") from None
    return folder


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
