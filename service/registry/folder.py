"""The registry as a folder: <root>/<name>/<version>/bundle.json."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..inference.card import DEFAULT_NAME
from ..inference.errors import NnpmError, printable

_MARK = "bundle.json"


class UnknownModelError(NnpmError):
    """A model name or version that the registry does not hold."""

    status, code, detail = 404, "unknown_model", None
    title = "Unknown model or version"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One bundle of the registry."""

    name: str
    version: str
    path: Path

    @property
    def title(self) -> str:
        """``name/version``, as requests and commands name it."""
        return f"{self.name}/{self.version}"


class ModelFolder:
    """A folder of bundles; what is in it is looked up anew each time, so publishing is a rename.

    Args:
        root: holds one folder per name, each with one folder per version. Hidden folders are
            being written and are not seen, nor are names that are not UTF-8.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """List the names that have a version, sorted."""
        return [folder.name for folder in _folders(self.root) if _version_names(folder)]

    def versions(self, name: str) -> list[str]:
        """List the versions of a model, oldest first: named ones, then integers by value.

        Raises:
            UnknownModelError: if there is no such model.
        """
        for folder in _folders(self.root):
            if folder.name == name and (versions := _version_names(folder)):
                return versions
        raise UnknownModelError(f"There is no model {name[:64]!r}; {_choices(self.names())}.")

    def resolve(self, name: str = DEFAULT_NAME, version: str | None = None) -> ModelVersion:
        """Find a bundle.

        Args:
            name: of the model.
            version: None for the highest.

        Raises:
            UnknownModelError: if there is no such model, or no such version of it.
        """
        versions = self.versions(name)
        if version is None:
            version = versions[-1]
        elif version not in versions:
            raise UnknownModelError(
                f"Model {name!r} has no version {version[:64]!r}; {_choices(versions)}."
            )
        return ModelVersion(name, version, self.root / name / version)

    def parse(self, text: str | None) -> ModelVersion:
        """Find a bundle by ``name`` or ``name/version``; None is the default model.

        Raises:
            UnknownModelError: as ``resolve``.
        """
        name, slash, version = (text or DEFAULT_NAME).partition("/")
        return self.resolve(name, version if slash else None)


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:  # knows folders without asking for each
            names = [one.name for one in entries if one.is_dir() and _is_name(one.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [root / name for name in sorted(names)]


def _is_name(name: str) -> bool:
    """Whether a folder may be a model or version: not hidden, and its name can be shown."""
    return not name.startswith(".") and printable(name) == name


def _version_names(folder: Path) -> list[str]:
    names = [version.name for version in _folders(folder) if (version / _MARK).is_file()]
    return sorted(names, key=_age)


def _age(version: str) -> tuple[bool, int, str]:
    number = version.isascii() and version.isdecimal()
    return (number, int(version) if number else 0, version)


def _choices(names: list[str]) -> str:
    return f"there is {', '.join(names)}" if names else "the models folder is empty"
