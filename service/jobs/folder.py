"""The folder of one job: what its service, its worker and its child process share.

A child is another program (``python -m training adapt --job DIR``); it knows the same names.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import files


class JobFolder:
    """Paths of one job, and its small files.

    Args:
        root: holds one folder per job.
        id: of the job.

    Examples:
        >>> JobFolder(Path("jobs"), "7f").report.as_posix()
        'jobs/7f/report.json'
    """

    def __init__(self, root: Path, id: str) -> None:  # noqa: A002 - the job's own word
        if not id.isalnum():
            raise ValueError(f"{id!r} is not the name of a job: letters and digits are wanted")
        self.path = root / id
        self.upload = self.path / "upload"
        """As it was sent: an archive, or files."""
        self.target = self.path / "target"
        """The audio, unpacked: one folder for each try."""
        self.request = self.path / "request.json"
        """What the child shall do; written when the audio is prepared."""
        self.progress = self.path / "progress.json"
        """How far the child is: ``{"state", "stage", "done", "total", "progress"}``."""
        self.report = self.path / "report.json"
        """What the child found; written when its bundle is complete."""
        self.error = self.path / "error.json"
        """Why the child could not do it: ``{"detail", "errno"}``."""
        self.out = self.path / "out"
        """The bundle that the child made."""
        self.lock = self.path / "child.lock"
        """Locked for the life of the child, whose process number it holds."""
        self.log = self.path / "child.log"
        """What the child said on standard error."""

    def create(self) -> None:
        """Make the folder, readable for its owner alone: it holds people's voices."""
        self.path.mkdir(mode=0o700, parents=True)

    def remove_work(self) -> None:
        """Remove all but the report, the error and the request; no error if it is gone."""
        kept = {self.report, self.error, self.request}
        with contextlib.suppress(FileNotFoundError):
            for path in set(self.path.iterdir()) - kept:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything; no error if it is gone."""
        shutil.rmtree(self.path, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a small file that another process may be replacing.

    Returns:
        Its object; None if there is no such file, or no JSON object in it.
    """
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a small file whole, also when the power fails.

    Raises:
        OSError: if it cannot be written; what stood there stays.
    """
    files.replace(path, json.dumps(data).encode())
