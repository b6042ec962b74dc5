"""Files that are written whole or not at all, locks between processes, and names from clients.

Whatever we replace, sync or lock on a disk goes through here, so that one test of the order
"write, sync, rename, sync the folder" holds for all of it.
"""

import fcntl
import json
import os
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from .inference.errors import ParameterError

_LONGEST_PART_BYTES = 100
_MOST_PARTS = 16


def sync(path: Path) -> None:
    """Make the contents of a file, or the names in a folder, survive a loss of power.

    A file that was renamed into a folder may still be lost before the folder is synced.

    Raises:
        OSError: if it cannot be opened, or the disk is full.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_new(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a new file; call ``sync`` for it and its folder to make it last.

    Args:
        path: where no file may be yet.
        data: its contents.
        mode: its permissions, whatever the umask is; None for those that the umask leaves.

    Raises:
        OSError: if the file exists or cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    with os.fdopen(handle, "wb") as file:
        if mode is not None:
            os.fchmod(handle, mode)
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; the file written there replaces it at the end.

    The temporary name is new each time, so that processes (of several containers, too) do not
    write into one another's file. A block that fails leaves what was there before, and nothing
    else.

    Raises:
        OSError: if the file cannot be synced or renamed.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def replace(path: Path, data: bytes, mode: int | None = None) -> None:
    """Replace a small file; readers, and a loss of power, find the old file or the new one.

    Args:
        path: of the file, which need not exist.
        data: its new contents.
        mode: its permissions; None for those that the umask leaves.

    Raises:
        OSError: if it cannot be written; the old file stays.
    """
    with replacing(path) as temporary:
        write_new(temporary, data, mode)


@contextmanager
def lock(path: Path, *, wait: bool = True, mode: int = 0o600) -> Iterator[int]:
    """Hold the operating system's lock on a file or folder until the block, or the process, ends.

    Args:
        path: a folder, or a file, which is made if it does not exist.
        wait: whether to wait while another process holds the lock.
        mode: permissions of a file that is made.

    Yields:
        The descriptor of the open file.

    Raises:
        BlockingIOError: if another process holds the lock, without ``wait``.
        OSError: if the file cannot be opened.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags, mode)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield handle
    finally:
        os.close(handle)


@contextmanager
def object_lock(
    store: Any, path: str, *, wait_s: float, lease_s: float = 60.0
) -> Iterator[Callable[[], bool]]:
    """Hold a lock that is an object in a store, which only one writer can create.

    A holder renews it; one that has not for ``lease_s`` is taken for dead.

    Args:
        store: a file system of fsspec that can create a file only if there is none, as S3 can.
        path: of the object in it.
        wait_s: how long to wait for another holder.
        lease_s: how old a lock must be to be taken over.

    Yields:
        A function that says whether the lock is still ours.

    Raises:
        BlockingIOError: if another writer holds it.
        OSError: if the store cannot be written.
    """
    mine, deadline = uuid4().hex, time.monotonic() + wait_s

    def content() -> bytes:
        return json.dumps({"by": mine, "until": time.time() + lease_s}).encode()

    def holder() -> dict[str, Any]:
        with suppress(FileNotFoundError, ValueError):
            found = json.loads(store.cat_file(path))
            if isinstance(found, dict):
                return found
        return {}

    while True:
        with suppress(FileExistsError):
            if not _has_buckets(store):  # a bucket that is missing is an error, and made by nobody
                store.makedirs(path.rpartition("/")[0], exist_ok=True)
            store.pipe_file(path, content(), mode="create")
            break
        if 0 < holder().get("until", 0) < time.time():
            with suppress(FileNotFoundError):
                store.rm_file(path)
            continue
        if time.monotonic() >= deadline:
            raise BlockingIOError(f"{path} is held by another writer.")
        time.sleep(0.05)
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not ended.wait(lease_s / 3):
            with suppress(OSError):
                if holder().get("by") != mine:
                    lost.set()
                    return
                store.pipe_file(path, content())

    renewer = threading.Thread(target=renew, name="nnpm-lock", daemon=True)
    renewer.start()
    try:
        yield lambda: not lost.is_set()
    finally:
        ended.set()
        renewer.join()
        with suppress(OSError):
            if holder().get("by") == mine:
                store.rm_file(path)


def _has_buckets(store: Any) -> bool:
    names = {store.protocol} if isinstance(store.protocol, str) else set(store.protocol)
    return bool(names & {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"})


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; a file that does not exist has none."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def require_place(path: Path) -> None:
    """Check that a file or folder could be made at ``path``, before the work that fills it.

    Raises:
        ParameterError: if ``path`` is a folder, or the folder above it cannot be written.
    """
    if path.is_dir():
        raise ParameterError(f"{path} cannot be written: it is a folder")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ParameterError(f"{path} cannot be written: {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ParameterError(f"{path} cannot be written: {above} is not writable")


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
