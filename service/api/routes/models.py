"""What the registry holds, and which version answers.

These routes read files: they are plain functions, run on threads.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from ...inference import bundle
from ...registry.registry import Aliases
from ..middleware.access import requires
from ..openapi import problems
from ..services import Services, services_of

router = APIRouter(prefix="/models", tags=["models"])

TheServices = Annotated[Services, Depends(services_of)]
Readers = Depends(requires("predict"))
Admins = Depends(requires("admin"))


class _Part(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class AliasesPart(_Part):
    """The versions of one language."""

    live: str | None
    """It answers; null: the default model does."""
    previous: str | None
    """It stood there before, and a roll-back brings it back; null: the default model did."""
    shadow: str | None
    """It hears requests without answering."""


class FiguresPart(_Part):
    """What a version heard lately, in this process: at most 200 recordings that hold speech."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    version: str
    language: str
    """The route by which the recordings came."""
    role: Literal["live", "shadow"]
    """live: it answered them; shadow: it only heard them."""
    heard: int
    """Recordings since the process began."""
    recent: int
    """Recordings that the shares are of."""
    mean_confidence: float
    abstained: float
    """Share that it abstained from, or would have."""
    out_of_domain: float
    """Mean figure."""
    drift: float
    """Share of recordings that are out of its domain."""
    hint: str
    """What the drift means: few recordings yet, as expected, adapt again."""
    agreement: float | None
    """Share in which a shadow agrees with what was answered; null for live versions."""


class ModelEntry(_Part):
    """One name and its versions."""

    name: str
    versions: list[str]
    """Oldest first."""
    aliases: dict[str, AliasesPart]
    """By language. A language that is not here is answered by the default model: und's live
    version or, without one, the newest version that no adaptation made."""
    figures: list[FiguresPart]
    """What the versions heard lately."""


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
    evidence: dict[str, Any] | None
    """Of an adapted version: verdict, reasons, estimated accuracy, figures."""
    lineage: Lineage
    card: dict[str, Any]
    """The bundle's own card, whole."""


class VersionChoice(_Part):
    """A version, and the language that it shall answer for."""

    version: str = Field(max_length=128)
    language: str | None = Field(default=None, max_length=64)
    """BCP-47; the version's own unless told."""


class ShadowChoice(_Part):
    """A version that shall hear a language's requests; null ends that."""

    version: str | None = Field(max_length=128)
    language: str | None = Field(default=None, max_length=64)
    """BCP-47; the version's own unless told, und where there is none."""


class RollbackChoice(_Part):
    """The language whose latest promotion is taken back."""

    language: str | None = Field(default=None, max_length=64)
    """BCP-47; the language that was promoted last unless told."""


class AliasesAnswer(_Part):
    """The aliases of a name after a change."""

    name: str
    aliases: dict[str, AliasesPart]


@router.get("", dependencies=[Readers])
def list_models(services: TheServices) -> ModelList:
    """List the names and their versions."""
    return ModelList(models=[_entry(services, name) for name in services.registry.names()])


@router.get("/{name}", responses=problems(404, 422), dependencies=[Readers])
def show_model(name: str, services: TheServices) -> ModelEntry:
    """Show one name."""
    return _entry(services, name)


@router.get("/{name}/{version}", responses=problems(404, 422, 503), dependencies=[Readers])
def show_version(name: str, version: str, services: TheServices) -> VersionDetail:
    """Show one version: its card, metrics, evidence and lineage."""
    card = bundle.load(services.registry.resolve(name, version).path).card
    return VersionDetail(
        name=name,
        version=version,
        language=card.language,
        metrics=card.metrics,
        evidence=card.metrics.get("adaptation"),
        lineage=Lineage(parent=card.parent, created_at=card.created_at, training=card.training),
        card=card.model_dump(mode="json"),
    )


@router.post("/{name}/promote", responses=problems(404, 422, 503), dependencies=[Admins])
def promote(name: str, choice: VersionChoice, services: TheServices) -> AliasesAnswer:
    """Let a version answer for a language, once it is loaded and has passed its probe."""
    return _answer(name, services.serving.promote(name, choice.version, choice.language))


@router.post("/{name}/rollback", responses=problems(404, 409, 422, 503), dependencies=[Admins])
def rollback(
    name: str, services: TheServices, choice: RollbackChoice | None = None
) -> AliasesAnswer:
    """Take the latest promotion back."""
    return _answer(name, services.serving.rollback(name, choice.language if choice else None))


@router.post("/{name}/shadow", responses=problems(404, 422, 503), dependencies=[Admins])
def shadow(name: str, choice: ShadowChoice, services: TheServices) -> AliasesAnswer:
    """Let a version hear a language's requests without answering."""
    return _answer(name, services.serving.shadow(name, choice.version, choice.language))


@router.delete(
    "/{name}/{version}",
    status_code=204,
    responses=problems(404, 409, 422, 503),
    dependencies=[Admins],
)
def delete_version(name: str, version: str, services: TheServices) -> Response:
    """Delete a version that no alias holds."""
    services.registry.delete(name, version)
    return Response(status_code=204)


def _entry(services: Services, name: str) -> ModelEntry:
    registry = services.registry
    return ModelEntry(
        name=name,
        versions=registry.versions(name),
        aliases=_parts(registry.aliases(name)),
        figures=[FiguresPart.model_validate(one) for one in services.traffic.figures(name)],
    )


def _answer(name: str, aliases: dict[str, Aliases]) -> AliasesAnswer:
    return AliasesAnswer(name=name, aliases=_parts(aliases))


def _parts(aliases: dict[str, Aliases]) -> dict[str, AliasesPart]:
    return {language: AliasesPart(**asdict(held)) for language, held in aliases.items()}
