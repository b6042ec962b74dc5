"""Opens the registry that the settings name, and copies the bundles of a release into it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..inference import device
from ..inference.bundle import SEAL
from ..inference.card import DEFAULT_NAME
from ..inference.recognizer import Recognizer
from ..settings import Settings
from .folder import ModelFolder, ModelVersion
from .registry import Registry
from .remote import RemoteRegistry
from .serving import load_recognizer

_PACKAGE = Path(__file__).parents[2]

OPEN_NAME = "open"
"""The model that a wheel holds; its licences allow commercial use."""


def models_that_came_along() -> Path | None:
    """Find the bundles of the installation: those of a checkout, or ``nnpm/models`` of a wheel.

    A model wheel puts its bundle into ``nnpm/models``, too.
    """
    for folder in (_PACKAGE / "models", _PACKAGE.parent / "models"):
        if folder.is_dir():
            return folder
    return None


def open_to_read(settings: Settings) -> Registry:
    """Make the registry that a command reads: where there is no models folder, the installation's.

    Raises:
        RegistryError: if what a URL needs is not installed.
    """
    if _lacks_models(settings) and (own := models_that_came_along()) is not None:
        return Registry(own)
    return open_registry(settings)


def open_to_serve(settings: Settings) -> Registry:
    """Make the registry of a service, and copy the bundles of the release into it.

    Where the models folder does not exist, it is made of the bundles of the installation; if these
    lack a model called default, the open one gets that name.

    Raises:
        BundleError: if a bundle is damaged.
        RegistryError: if what a URL needs is not installed, or the registry cannot be written.
    """
    registry = open_registry(settings)
    if settings.bundled is not None:
        seed_registry(registry, settings.bundled)
    elif _lacks_models(settings) and (own := models_that_came_along()) is not None:
        seed_registry(registry, own)
        if DEFAULT_NAME not in registry.names() and OPEN_NAME in registry.names():
            registry.publish(registry.resolve(OPEN_NAME).path, DEFAULT_NAME, key="bundled:open")
    return registry


def main_name(registry: Registry) -> str:
    """The model that answers a command that names none: default, or the open one without it."""
    names = registry.names()
    return OPEN_NAME if DEFAULT_NAME not in names and OPEN_NAME in names else DEFAULT_NAME


def _lacks_models(settings: Settings) -> bool:
    return settings.models == Path("models") and not settings.models.exists()


def open_registry(settings: Settings) -> Registry:
    """Make the registry of a folder, or of a URL.

    Raises:
        RegistryError: if what a URL needs is not installed.
    """
    if isinstance(settings.models, str):
        return RemoteRegistry(settings.models, settings.models_cache)
    return Registry(settings.models)


def loader(
    settings: Settings, on_batch: Callable[[int], object] = lambda _: None
) -> Callable[[Path], Recognizer]:
    """Choose what loads bundles: for the processor, or for the GPU that the settings ask for.

    Args:
        settings: of the service or the command.
        on_batch: called with the number of clips of each run of a GPU.

    Raises:
        ExtraMissingError: if there is no GPU that can be used; it says what to do.
    """
    if settings.device == "cpu":
        return load_recognizer
    return partial(load_recognizer, device=device.cuda(on_batch))


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
            held = {_seal(registry.root / name / v) for v in registry.versions(name)}
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
