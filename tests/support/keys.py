"""A key file for a service under test."""

from pathlib import Path
from typing import Any

from nnpm.service.keys import KeyFile


def make_keys(path: Path) -> dict[str, Any]:
    """Create a key file with one key per scope and one key without a scope.

    Returns:
        The request headers for each key.
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
