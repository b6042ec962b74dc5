"""A file of keys for a service under test."""

from pathlib import Path
from typing import Any

from nnpm.service.keys import KeyFile


def make_keys(path: Path) -> dict[str, Any]:
    """Make a file of keys, one named after each scope and one without any.

    Returns:
        The headers that carry each.
    """
    file = KeyFile(path)
    named: dict[str, frozenset[Any]] = {
        "predict": frozenset({"predict"}),
        "adapt": frozenset({"adapt"}),
        "admin": frozenset({"admin"}),
        "metrics": frozenset(),
    }
    return {
        name: {"Authorization": f"Bearer {file.create(name, scopes)[0]}"}
        for name, scopes in named.items()
    }
