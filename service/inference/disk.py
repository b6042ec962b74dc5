"""What makes written files survive a loss of power."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make the contents of a file last, or the names in a folder.

    A file that was renamed into a folder may still be lost before the folder is synced.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
