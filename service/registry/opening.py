"""The registry that the settings name."""

from service.registry.registry import Registry
from service.settings import Settings


def open_registry(settings: Settings) -> Registry:
    """Make the registry of a folder, or of a URL.

    Raises:
        RegistryError: if what a URL needs is not installed.
    """
    if isinstance(settings.models, str):
        from service.registry.remote import RemoteRegistry

        return RemoteRegistry(settings.models, settings.models_cache)
    return Registry(settings.models)
