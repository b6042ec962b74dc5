"""Names that strangers give to files, made safe; what can be kept of them is kept."""

import unicodedata
from pathlib import Path, PurePosixPath

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
    """Places of files in a folder where none is yet: a second ``a.wav`` becomes ``a~2.wav``.

    Args:
        into: the folder.
    """

    def __init__(self, into: Path) -> None:
        self._into = into
        self._numbers: dict[PurePosixPath, int] = {}  # else a thousand of one name take a million

    def free(self, path: PurePosixPath) -> Path:
        """Find a place for a file that wants to stand at a path."""
        number = self._numbers.get(path, 0)
        while True:
            number += 1
            name = path.name if number == 1 else f"{path.stem}~{number}{path.suffix}"
            place = self._into / path.with_name(name)
            if not place.exists():
                self._numbers[path] = number
                return place
