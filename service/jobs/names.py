"""File names from clients, made safe to use on our disk."""

import unicodedata
from pathlib import Path, PurePosixPath

_LONGEST_PART_BYTES = 100
_MOST_PARTS = 16


def safe_path(name: str) -> PurePosixPath | None:
    """Make a safe relative path of a name; None for a hidden file or one in too many folders."""
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


class FreePaths:
    """Paths in a folder where no file is yet: a second ``a.wav`` becomes ``a~2.wav``.

    Args:
        into: the folder.
    """

    def __init__(self, into: Path) -> None:
        self._into = into
        # The last number of each name: else a thousand files of one name take a million looks.
        self._numbers: dict[PurePosixPath, int] = {}

    def free(self, path: PurePosixPath) -> Path:
        """Find a free path for a file that a client calls ``path``."""
        number = self._numbers.get(path, 0)
        while True:
            number += 1
            name = path.name if number == 1 else f"{path.stem}~{number}{path.suffix}"
            place = self._into / path.with_name(name)
            if not place.exists():
                self._numbers[path] = number
                return place
