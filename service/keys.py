"""API keys: how they are made, the file that holds them, and the keys of a running service.

A key is a text for its holder, ``nnpm_<id>_<secret>``, and an entry without that text in the key
file: JSON, replaced whole, readable for its owner only. The id finds the entry, so that a check
takes the same time for every key; the secret is 256 random bits. That is why a plain sha256 is the
right hash: salt and slow hashes make guesses expensive where people choose passwords, and 256 bits
cannot be guessed. A slow hash would only let anybody waste the service's time.
"""

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from . import files
from .inference.errors import NnpmError, validation_detail

Scope = Literal["predict", "adapt", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "nnpm"
"""Shows scanners for leaked secrets, and people, what the text is."""

ANONYMOUS_NAME = "anonymous"
"""Name of the callers of a service without keys; no key may have it."""

_MAX_TEXT = 256
_NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_ID = r"[0-9a-f]{12}"


class KeysError(NnpmError):
    """A key that cannot be made or found, or a key file that cannot be used."""


class Key(BaseModel):
    """The entry of a key: all that the service stores, which is not the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(pattern=f"^{_ID}$")
    """The part of the key's text that finds the entry."""

    name: str = Field(pattern=f"^{_NAME}$")
    """Name of the holder; jobs belong to the name."""

    scopes: Annotated[frozenset[Scope], PlainSerializer(sorted)]
    """What the key permits; admin permits everything, no scope only /metrics."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the key's text."""

    created_at: AwareDatetime
    """Time of creation."""

    revoked_at: AwareDatetime | None = None
    """Time since when the key is invalid."""

    @property
    def active(self) -> bool:
        """Whether the key is valid."""
        return self.revoked_at is None

    def opens(self, text: str) -> bool:
        """Whether a text is this key; takes the same time for any text."""
        return hmac.compare_digest(self.sha256, _digest(text))


_NOBODY = Key(
    id="0" * 12,
    name="nobody",
    scopes=frozenset(),
    sha256="0" * 64,  # of no known text
    created_at=datetime(1970, 1, 1, tzinfo=UTC),
)


def make_key(name: str, scopes: Iterable[Scope]) -> tuple[str, Key]:
    """Make a key.

    Returns:
        Its text, which is kept nowhere, and its entry.

    Raises:
        KeysError: if it cannot be named so.
    """
    if not re.fullmatch(_NAME, name) or re.fullmatch(_ID, name) or name == ANONYMOUS_NAME:
        raise KeysError(
            f"{name[:80]!r} cannot be a key's name; it must have 1 to 64 letters, digits, '.', '_' "
            f", '@' or '-', and be neither {ANONYMOUS_NAME} nor 12 hexadecimal digits, as an id"
        )
    key_id = secrets.token_hex(6)
    text = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    now = datetime.now(UTC).replace(microsecond=0)
    return text, Key(
        id=key_id, name=name, scopes=frozenset(scopes), sha256=_digest(text), created_at=now
    )


def find_key(keys: dict[str, Key], text: str) -> Key | None:
    """Find the active key that a text is, by its id and then in constant time.

    Args:
        keys: by id.
        text: whatever was sent.
    """
    if len(text) > _MAX_TEXT:
        return None
    _, _, rest = text.partition("_")
    key = keys.get(rest.partition("_")[0], _NOBODY)
    opens = key.opens(text)  # of a key that is unknown or revoked as well: all cost the same
    return key if opens and key.active else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


_MODE = 0o600


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: list[Key]


def read_keys(path: Path) -> list[Key]:
    """Read a key file.

    Raises:
        KeysError: if it is missing, unreadable or damaged; one sentence that names it.
    """
    try:
        keys = _Content.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise KeysError(f"the key file {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        detail = validation_detail(error.errors(), limit=1)
        raise KeysError(f"the key file {path} is damaged: {detail}") from None
    if len({key.id for key in keys}) < len(keys):
        raise KeysError(f"the key file {path} is damaged: two keys have one id")
    return keys


class KeyFile:
    """Changes the key file; processes that change it at the same time wait for each other.

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
            return read_keys(self._path) if self._path.exists() else []
        except OSError as error:
            raise KeysError(f"the key file {self._path} cannot be read: {error.strerror}") from None

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
            text, key = make_key(name, scopes)
            keys.append(key)
        return text, key

    def revoke(self, name_or_id: str) -> Key:
        """Make a key invalid.

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
            with files.lock(self._path.parent):
                keys = self.read()
                yield keys
                self._write(keys)
        except OSError as error:
            raise KeysError(
                f"the key file {self._path} cannot be written: {error.strerror}"
            ) from None

    def _write(self, keys: list[Key]) -> None:
        """Replace the file in one step; its readers find the old or the new one, whole."""
        content = json.dumps(_Content(keys=keys).model_dump(mode="json"), indent=2) + "\n"
        mode = self._path.stat().st_mode & 0o777 if self._path.exists() else _MODE
        files.replace(self._path, content.encode(), mode)


LOOK_S = 1.0
"""The file is looked at no more often; only while somebody calls."""

log = logging.getLogger("nnpm")

_Look = tuple[int, int, int] | None


class ApiKeys:
    """Finds keys. Used from one thread.

    Args:
        path: of the key file.
        clock: gives seconds.

    Raises:
        KeysError: if the file cannot be used at the start.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen = _look(path)
        self._next_look_s = clock() + LOOK_S
        self._keys = _by_id(read_keys(path))
        if not any(key.active for key in self._keys.values()):
            log.warning("the key file holds no active key: nobody can call the service")

    def find(self, text: str) -> Key | None:
        """Find the active key that a text is."""
        if self._clock() >= self._next_look_s:
            self._follow()
        return find_key(self._keys, text)

    def active(self, key_id: str) -> Key | None:
        """The key of an id, unless it is unknown or was revoked."""
        if self._clock() >= self._next_look_s:
            self._follow()
        key = self._keys.get(key_id)
        return key if key is not None and key.active else None

    def _follow(self) -> None:
        """Take the file's keys if it has changed; keep those that were good if it is not."""
        self._next_look_s = self._clock() + LOOK_S
        found = _look(self._path)
        if found == self._seen:
            return
        self._seen = found
        try:
            self._keys = _by_id(read_keys(self._path))
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
