"""What a version descends from: which ones a newer base has overtaken, and what can be adapted."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..inference.bundle import CARD
from ..inference.card import DEFAULT_LANGUAGE, SCHEMA_VERSION
from .folder import ModelVersion


@dataclass(frozen=True, slots=True)
class Origin:
    """What a card says of a bundle's descent.

    Attributes:
        digest: sha256 of the card, by which bundles adapted from this one name it.
        parent: digest of the card of the bundle that it was adapted from; None if it was not.
        schema_version: of the card.
    """

    digest: str
    parent: str | None
    schema_version: int


def origin(model: ModelVersion) -> Origin | None:
    """Read a version's descent; None if its card cannot be read, which loading it reports."""
    card = model.path / CARD
    try:
        return _origin_as_of(card, card.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=1 << 15)  # more versions than a registry has
def _origin_as_of(card: Path, _modified_ns: int) -> Origin | None:
    try:
        data = card.read_bytes()
        fields = json.loads(data)
        parent, schema = fields["parent"], int(fields["schema_version"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    digest = hashlib.sha256(data).hexdigest()
    return Origin(digest, parent if isinstance(parent, str) else None, schema)


def is_adapted(model: ModelVersion) -> bool:
    """Whether an adaptation made it."""
    own = origin(model)
    return own is not None and own.parent is not None


def can_be_adapted(model: ModelVersion) -> bool:
    """Whether it is of the generation that adaptation takes, or cannot be read."""
    own = origin(model)
    return own is None or own.schema_version == SCHEMA_VERSION


def outdated(
    routes: Mapping[str, ModelVersion], versions: Iterable[ModelVersion]
) -> dict[str, ModelVersion]:
    """Find the languages whose version descends from an older base than the default model's.

    It is of an older generation, or was adapted from a bundle that the default model does not
    descend from.

    Args:
        routes: the version that answers, by language; und is among them.
        versions: all of the name, through which descent is followed.

    Returns:
        The version that answers, by language.
    """
    default = origin(routes[DEFAULT_LANGUAGE])
    if default is None:
        return {}
    parents = {own.digest: own.parent for model in versions if (own := origin(model)) is not None}

    def root(one: Origin) -> str:
        """The digest of the farthest ancestor that is named."""
        digest = one.digest
        while (parent := parents.get(digest)) is not None:  # a digest of itself no card can hold
            digest = parent
        return digest

    found = {}
    for language, model in routes.items():
        own = None if language == DEFAULT_LANGUAGE else origin(model)
        if own is None or own == default:
            continue
        is_older = own.schema_version < default.schema_version
        if is_older or (own.parent is not None and root(own) != root(default)):
            found[language] = model
    return found


def advice(model: ModelVersion, language: str, base: ModelVersion) -> str:
    """Name a version that a newer base has overtaken, and the command that adapts again."""
    return (
        f"{model.title} answers for {language} and was adapted from an older base than "
        f"{base.title}; adapt again: nnpm adapt --bundle $NNPM_MODELS/{base.title} --target DIR "
        f"--language {language} --out BUNDLE, or POST /adapt with language={language}."
    )
