"""What an API key is: a text for its holder, and an entry without the text for the service.

The text is ``nnpm_<id>_<secret>``. The id finds the entry, so checking costs the same for every
key; the secret is 256 random bits. That is why a plain sha256 is the right hash: salt and slow
hashes make guesses dear where people choose passwords, and nobody guesses 256 bits. A slow hash
would only let strangers spend the service's time.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from service.inference.errors import NnpmError

Scope = Literal["predict", "adapt", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "nnpm"
"""So that scanners for leaked secrets, and people, see what it is."""

ANONYMOUS_NAME = "anonymous"
"""Whoever calls a service without keys; no key may be named so."""

_MAX_TEXT = 256
_NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_ID = r"[0-9a-f]{12}"


class KeysError(NnpmError):
    """A key that cannot be made or found, or a file of keys that cannot be used."""


class Key(BaseModel):
    """What the service knows of a key; the key itself is not among it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(pattern=f"^{_ID}$")
    """The part of the key's text that finds it."""

    name: str = Field(pattern=f"^{_NAME}$")
    """Who holds it; jobs belong to the name."""

    scopes: Annotated[frozenset[Scope], PlainSerializer(sorted)]
    """What it is for; admin is for everything, none for /metrics alone."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the key's text."""

    created_at: AwareDatetime
    """When it was made."""

    revoked_at: AwareDatetime | None = None
    """Since when it opens nothing."""

    @property
    def active(self) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None

    def opens(self, text: str) -> bool:
        """Whether a text is this key; takes as long for any text."""
        return hmac.compare_digest(self.sha256, _digest(text))


_NOBODY = Key(
    id="0" * 12,
    name="nobody",
    scopes=frozenset(),
    sha256="0" * 64,  # of no known text
    created_at=datetime(1970, 1, 1, tzinfo=UTC),
)


def make(name: str, scopes: Iterable[Scope]) -> tuple[str, Key]:
    """Make a key.

    Returns:
        Its text, which is kept nowhere, and its entry.

    Raises:
        KeysError: if it cannot be named so.
    """
    if not re.fullmatch(_NAME, name) or re.fullmatch(_ID, name) or name == ANONYMOUS_NAME:
        raise KeysError(
            f"{name[:80]!r} cannot be a key's name; 1 to 64 letters, digits, '.', '_', '@' or '-' "
            f"are wanted, not {ANONYMOUS_NAME} and not what looks like an id"
        )
    key_id = secrets.token_hex(6)
    text = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    now = datetime.now(UTC).replace(microsecond=0)
    return text, Key(
        id=key_id, name=name, scopes=frozenset(scopes), sha256=_digest(text), created_at=now
    )


def find(keys: dict[str, Key], text: str) -> Key | None:
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
