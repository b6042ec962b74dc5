"""Where a result comes from: the lines that stand under every table."""

import datetime
import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from service import __version__


def provenance(command: str) -> dict[str, str]:
    """Command, machine, commit and date of a measurement.

    Where the package is installed without its repository, its version stands for the commit.
    """
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@cache
def code() -> str:
    """A digest of what the figures are made by: adaptation and benchmark, as they stand on disk."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for part in ("adaptation", "benchmark"):
        for path in sorted((folder / part).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return f"nnpm {__version__}"
