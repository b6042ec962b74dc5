"""Opens the registry that the settings name, and copies the bundles of a release into it."""

from pathlib import Path

from ..inference.bundle import SEAL
from ..settings import Settings
from .folder import ModelFolder, ModelVersion
from .registry import Registry
from .remote import RemoteRegistry


def open_registry(settings: Settings) -> Registry:
    """Make the registry of a folder, or of a URL.

    Raises:
        RegistryError: if what a URL needs is not installed.
    """
    if isinstance(settings.models, str):
        return RemoteRegistry(settings.models, settings.models_cache)
    return Registry(settings.models)


def seed_registry(registry: Registry, bundled: Path) -> list[ModelVersion]:
    """Copy the bundles of a folder that a registry does not hold yet.

    A bundle is known by its seal, not by its number: it keeps its number unless an adaptation has
    taken that in the meantime, and then gets the next free one. So no number is used again for
    another release's model. Processes that start at once copy it once.

    Args:
        registry: gets the bundles.
        bundled: <name>/<version>/bundle.json each.

    Returns:
        The new versions, oldest first.

    Raises:
        BundleError: if a bundle is damaged.
        RegistryError: if the registry cannot be written; one that holds all need not be.
    """
    source = ModelFolder(bundled)
    new = []
    for name in source.names():
        held = set()
        if name in registry.names():
            held = {_seal(registry.resolve(name, v).path) for v in registry.versions(name)}
        for version in source.versions(name):
            found = source.resolve(name, version)
            if (seal := _seal(found.path)) not in held:
                number = int(version) if version.isascii() and version.isdecimal() else 1
                key = f"bundled:{seal}"
                new.append(registry.publish(found.path, name, key=key, number=number))
    return new


def _seal(path: Path) -> str:
    try:
        return (path / SEAL).read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError):
        return ""  # damaged: whoever loads it says how
