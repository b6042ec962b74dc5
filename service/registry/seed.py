"""The bundles that come with a release, copied into a registry that outlives it."""

from pathlib import Path

from service.inference.bundle import SEAL
from service.registry.folder import ModelFolder, ModelVersion
from service.registry.registry import Registry


def seed(registry: Registry, bundled: Path) -> list[ModelVersion]:
    """Copy the bundles of a folder that a registry does not hold yet.

    A bundle is known by its seal, not by its number: one whose number an adaptation has taken in
    the meantime gets the next free one. Processes that start at once copy it once.

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
                new.append(registry.publish(found.path, name, key=f"bundled:{seal}"))
    return new


def _seal(path: Path) -> str:
    try:
        return (path / SEAL).read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError):
        return ""  # damaged: whoever loads it says how
