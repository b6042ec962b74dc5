"""The audio of a job as a folder: one of the server's, uploaded files, or an archive unpacked."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..inference.audio.formats import PassedOver
from ..inference.errors import original_name
from ..settings import Settings
from .archive import IntakeLimits, unpack
from .errors import ArchiveError, FolderRefusedError
from .folder import JobFolder
from .job import Job


def allowed_folder(text: str, roots: Iterable[Path]) -> Path:
    """Resolve a folder's symbolic links, and check that it lies under an allowed folder.

    JSON cannot hold a name that is not UTF-8: such a folder is named as ``printable`` shows it.

    Only an error about an allowed folder shows whether the folder exists.

    Raises:
        FolderRefusedError: if the folder is not allowed, or cannot be read.
    """
    allowed = [root.resolve() for root in roots]
    if not allowed:
        raise FolderRefusedError(
            "This service accepts no folders: NNPM_ADAPT_ROOTS is not set; send files."
        )
    try:
        folder = Path(text).resolve()
        if not folder.exists():
            folder = Path(original_name(text)).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links; a NUL in the name
        raise FolderRefusedError("The folder's name is not a valid path.") from None
    if not Path(text).is_absolute() or not any(folder.is_relative_to(root) for root in allowed):
        raise FolderRefusedError(
            "The folder must be an absolute path under one of the folders in NNPM_ADAPT_ROOTS."
        )
    try:
        if not folder.is_dir():
            raise FolderRefusedError("There is no such folder.")
        next(folder.iterdir(), None)
    except OSError:
        raise FolderRefusedError("The service may not read this folder.") from None
    return folder


FOLDER, ARCHIVE, FILES = "folder:", "archive", "files"
"""``Job.source`` is one of the last two, or begins with the first."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The audio of a job: a folder, and the members of its archive that are no recordings."""

    folder: Path
    passed_over: PassedOver = field(default_factory=dict)


def prepare(job: Job, folder: JobFolder, settings: Settings, check: Callable[[], None]) -> Prepared:
    """Give the folder with a job's audio; an archive is unpacked first.

    Each claim of a job unpacks into a folder of its own, named by its fencing token: the folder of
    an earlier claim may be half written, and its worker may still be writing.

    Args:
        job: as claimed.
        folder: the job's folder.
        settings: limits, and the allowed folders.
        check: called now and then; an error that it raises ends the work.

    Returns:
        The folder to adapt to, and what was left in the archive.

    Raises:
        IntakeError: if the audio cannot be used.
        OSError: if the job's folder cannot be written.
    """
    check()
    if job.source.startswith(FOLDER):
        named = job.source.removeprefix(FOLDER)
        return Prepared(allowed_folder(named, settings.adapt_roots))
    if job.source == FILES:
        return Prepared(folder.upload)
    archive = next((path for path in folder.upload.glob("*") if path.is_file()), None)
    if archive is None:
        raise ArchiveError("The uploaded archive has been removed; send it again.")
    for old in folder.target.glob("*"):
        if int(old.name) < job.token:
            shutil.rmtree(old, ignore_errors=True)
    target = folder.target / str(job.token)
    limits = IntakeLimits(
        settings.adapt_max_members, settings.adapt_max_unpacked_bytes, settings.adapt_max_ratio
    )
    try:
        unpacked = unpack(archive, target, limits, check)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return Prepared(target, unpacked.passed_over)
