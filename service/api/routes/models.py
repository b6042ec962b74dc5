"""What the registry holds. These routes read files: they are plain functions, run on threads."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from service.api.openapi import problems
from service.api.services import Services, services_of
from service.inference import bundle

router = APIRouter(prefix="/models", tags=["models"])

TheServices = Annotated[Services, Depends(services_of)]


class _Part(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class ModelEntry(_Part):
    """One name and its versions."""

    name: str
    versions: list[str]
    """Oldest first; the last one answers."""
    aliases: dict[str, str]
    """Alias to version."""


class ModelList(_Part):
    """All names."""

    models: list[ModelEntry]


class Lineage(_Part):
    """Where a version comes from."""

    parent: str | None
    """sha256 of the card of the bundle that it was adapted from."""
    created_at: str
    training: dict[str, Any]
    """Corpora with licences, recipe, seed, command."""


class VersionDetail(_Part):
    """One version."""

    name: str
    version: str
    language: str
    metrics: dict[str, Any]
    lineage: Lineage
    card: dict[str, Any]
    """The bundle's own card, whole."""


@router.get("")
def list_models(services: TheServices) -> ModelList:
    """List the names and their versions."""
    return ModelList(models=[_entry(services, name) for name in services.folder.names()])


@router.get("/{name}", responses=problems(404, 422))
def show_model(name: str, services: TheServices) -> ModelEntry:
    """Show one name."""
    return _entry(services, name)


@router.get("/{name}/{version}", responses=problems(404, 422, 503))
def show_version(name: str, version: str, services: TheServices) -> VersionDetail:
    """Show one version: its card, metrics and lineage."""
    card = bundle.load(services.folder.resolve(name, version).path).card
    return VersionDetail(
        name=name,
        version=version,
        language=card.language,
        metrics=card.metrics,
        lineage=Lineage(parent=card.parent, created_at=card.created_at, training=card.training),
        card=card.model_dump(mode="json"),
    )


def _entry(services: Services, name: str) -> ModelEntry:
    return ModelEntry(name=name, versions=services.folder.versions(name), aliases={})
