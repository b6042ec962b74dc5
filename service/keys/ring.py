"""The keys of a running service: follows the file, and survives its damage."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from service.keys.file import read
from service.keys.key import Key, KeysError, find

LOOK_S = 1.0
"""The file is looked at no more often; only while somebody calls."""

log = logging.getLogger("nnpm")

_Look = tuple[int, int, int] | None


class KeyRing:
    """Finds keys. Used from one thread.

    Args:
        path: of the file of keys.
        clock: gives seconds.

    Raises:
        KeysError: if the file cannot be used at the start.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen = _look(path)
        self._next_look_s = clock() + LOOK_S
        self._keys = _by_id(read(path))
        if not any(key.active for key in self._keys.values()):
            log.warning("the file of keys holds no active key: nobody can call the service")

    def find(self, text: str) -> Key | None:
        """Find the active key that a text is."""
        if self._clock() >= self._next_look_s:
            self._follow()
        return find(self._keys, text)

    def _follow(self) -> None:
        """Take the file's keys if it has changed; keep those that were good if it is not."""
        self._next_look_s = self._clock() + LOOK_S
        found = _look(self._path)
        if found == self._seen:
            return
        self._seen = found
        try:
            self._keys = _by_id(read(self._path))
            log.info("keys read again: %d", len(self._keys))
        except KeysError as error:
            log.error("%s; the keys read before go on", error)


def _look(path: Path) -> _Look:
    try:
        found = os.stat(path)  # noqa: PTH116 - once a second, on the event loop
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _by_id(keys: list[Key]) -> dict[str, Key]:
    return {key.id: key for key in keys}
