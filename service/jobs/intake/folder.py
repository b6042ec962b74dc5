"""A folder of the server's that a request names."""

from collections.abc import Iterable
from pathlib import Path

from service.jobs.intake.errors import FolderRefusedError


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
