"""The file of keys: JSON, replaced whole, readable for its owner alone."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from service.keys.key import Key, KeysError, Scope, make

_MODE = 0o600


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: list[Key]


def read(path: Path) -> list[Key]:
    """Read a file of keys.

    Raises:
        KeysError: if it is missing, unreadable or damaged; one sentence that names it.
    """
    try:
        keys = _Content.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise KeysError(f"the file of keys {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise KeysError(f"the file of keys {path} is damaged: {place}: {first['msg']}") from None
    if len({key.id for key in keys}) < len(keys):
        raise KeysError(f"the file of keys {path} is damaged: two keys have one id")
    return keys


class KeyFile:
    """A file of keys that is changed; processes that do so wait for each other.

    Args:
        path: of the file; the first key makes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Key]:
        """All keys, oldest first, revoked ones included; none if there is no file yet.

        Raises:
            KeysError: if the file cannot be used.
        """
        try:
            return read(self._path) if self._path.exists() else []
        except OSError as error:
            raise KeysError(
                f"the file of keys {self._path} cannot be read: {error.strerror}"
            ) from None

    def create(
        self, name: str, scopes: frozenset[Scope] | None, *, rotate: bool = False
    ) -> tuple[str, Key]:
        """Make a key and keep its entry.

        Args:
            name: of its holder.
            scopes: what it is for; None with ``rotate``: as the newest key of the name.
            rotate: the name has a key already, and gets another one.

        Returns:
            The key's text, for its holder alone, and the entry.

        Raises:
            KeysError: if the name is taken, or not taken where it should be; or if the file cannot
                be used.
        """
        with self._changing() as keys:
            held = [key for key in keys if key.active and key.name == name]
            if held and not rotate:
                raise KeysError(
                    f"{name} has the key {held[-1].id} already; revoke it first, or give the name "
                    "a second key with --rotate"
                )
            if rotate and not held:
                raise KeysError(f"{name} has no key that could be rotated")
            if scopes is None:
                scopes = held[-1].scopes if held else frozenset()
            text, key = make(name, scopes)
            keys.append(key)
        return text, key

    def revoke(self, name_or_id: str) -> Key:
        """Let a key open nothing any more.

        Raises:
            KeysError: if no active key is called so, or several are; or if the file cannot be used.
        """
        with self._changing() as keys:
            active = [key for key in keys if key.active]
            found = [key for key in active if key.id == name_or_id] or [
                key for key in active if key.name == name_or_id
            ]
            if not found:
                raise KeysError(f"no active key has the name or id {name_or_id[:80]!r}")
            if len(found) > 1:
                ids = ", ".join(key.id for key in found)
                raise KeysError(f"{name_or_id} has {len(found)} keys; name one by its id: {ids}")
            revoked = found[0].model_copy(
                update={"revoked_at": datetime.now(UTC).replace(microsecond=0)}
            )
            keys[keys.index(found[0])] = revoked
        return revoked

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        try:
            with _locked(self._path.parent):
                keys = self.read()
                yield keys
                self._write(keys)
        except OSError as error:
            raise KeysError(
                f"the file of keys {self._path} cannot be written: {error.strerror}"
            ) from None

    def _write(self, keys: list[Key]) -> None:
        """Replace the file in one step; its readers find the old or the new one, whole."""
        content = json.dumps(_Content(keys=keys).model_dump(mode="json"), indent=2) + "\n"
        mode = self._path.stat().st_mode & 0o777 if self._path.exists() else _MODE
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
