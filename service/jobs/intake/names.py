"""Names that strangers give to files, made safe; what can be kept of them is kept."""

import unicodedata
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from service.jobs.intake.errors import IntakeError

_LONGEST_PART_BYTES = 100
_MOST_PARTS = 16


def safe_path(name: str) -> PurePosixPath | None:
    """A relative path of plain parts; None for a hidden file, or one that is nested too deep."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or len(parts) > _MOST_PARTS or any(part.startswith(".") for part in parts):
        return None
    return PurePosixPath(*map(_plain, parts))


def _plain(part: str) -> str:
    text = part.encode("utf-8", "replace").decode()
    text = "".join(c if unicodedata.category(c)[0] != "C" else "_" for c in text)
    stem, dot, suffix = text.rpartition(".")
    if not dot or len(suffix) > 8:
        stem, dot, suffix = text, "", ""
    room = _LONGEST_PART_BYTES - len(suffix.encode()) - 1
    return (stem.encode()[:room].decode("utf-8", "ignore") or "_") + dot + suffix


class Places:
    """Gives each file of a folder a place of its own: a second ``a.wav`` becomes ``a~2.wav``.

    Args:
        into: the folder.
    """

    def __init__(self, into: Path) -> None:
        self._into = into
        self._numbers: dict[PurePosixPath, int] = {}

    def open(self, path: PurePosixPath) -> BinaryIO:
        """Create a file, and the folders above it.

        Raises:
            IntakeError: if a folder of its path is a file already.
            OSError: if it cannot be written.
        """
        try:
            (self._into / path).parent.mkdir(parents=True, exist_ok=True)
            return self._free(path).open("xb")
        except (FileExistsError, NotADirectoryError):
            raise IntakeError(
                f"{str(path)[:80]!r} lies in what is a file as well; rename one of them."
            ) from None

    def _free(self, path: PurePosixPath) -> Path:
        # Counted: to try all numbers for each of thousands of like names would take minutes.
        number = self._numbers.get(path, 0) + 1
        while (place := self._into / _numbered(path, number)).exists():
            number += 1
        self._numbers[path] = number
        return place


def _numbered(path: PurePosixPath, number: int) -> PurePosixPath:
    return path if number == 1 else path.with_name(f"{path.stem}~{number}{path.suffix}")
