"""What makes written files survive a loss of power.

Files that are written whole or not at all.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from .inference.errors import ParameterError


def sync(path: Path) -> None:
    """Make the contents of a file last, or the names in a folder.

    A file that was renamed into a folder may still be lost before the folder is synced.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, which takes its place when the block ends well.

    The name is new each time, so that processes (of several containers, too) do not write into
    one another's file; a block that fails leaves nothing.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def require_place(path: Path) -> None:
    """Check that ``path`` could be written, before the work whose result is to go there.

    Raises:
        ParameterError: if it is a folder, lies under a file, or in a folder that takes no files.
    """
    if path.is_dir():
        raise ParameterError(f"{path} cannot be written: it is a folder")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ParameterError(f"{path} cannot be written: {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ParameterError(f"{path} cannot be written: {above} takes no files")
