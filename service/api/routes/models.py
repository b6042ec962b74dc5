"""/models: versions, their figures, and the aliases that choose which version answers.

These routes read files, so they are plain functions, which run on threads.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...inference import bundle
from ...inference.card import given_language
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
    """The version that answers; null: the version for und answers."""
    previous: str | None
    """The version that answers again after a roll-back; null: the version for und."""
    shadow: str | None
    """The version that scores requests without answering."""


class FiguresPart(_Part):
    """Figures of one version in this process: of its last 200 recordings that hold speech."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    version: str
    language: str
    """The route by which the recordings came."""
    role: Literal["live", "shadow"]
    """live: it answered them; shadow: it scored them, and another version answered."""
    heard: int
    """Recordings since the process began."""
    recent: int
    """Recordings that the shares are of."""
    mean_confidence: float
    abstained: float
    """Share that it abstained from, or would have abstained from."""
    out_of_domain: float
    """Mean out-of-domain figure."""
    drift: float
    """Share of recordings that are out of domain."""
    hint: str
    """What the drift means: few recordings yet, as expected, or adapt again."""
    agreement: float | None
    """Share in which a shadow agrees with the answer; null for live versions."""


class ModelEntry(_Part):
    """One model and its versions."""

    name: str
    versions: list[str]
    """Oldest first."""
    aliases: dict[str, AliasesPart]
    """By language. Any other language is answered by the version that is live for und; if there is
    none, by the newest version that no adaptation made."""
    figures: list[FiguresPart]
    """Figures of the versions that scored recordings lately."""
    warnings: list[str] = []
    """Versions that cannot be loaded, and which answer instead; languages whose version descends
    from an older base, and the command that adapts again. Left out if there are none."""


class ModelList(_Part):
    """All models."""

    models: list[ModelEntry]


class Lineage(_Part):
    """The origin of a version."""

    parent: str | None
    """sha256 of the card of the bundle that it was adapted from; null if it was not adapted."""
    created_at: str
    training: dict[str, Any]
    """Corpora with their licences, recipe, seed and command."""


class VersionDetail(_Part):
    """One version."""

    name: str
    version: str
    language: str
    metrics: dict[str, Any]
    evidence: dict[str, Any] | None
    """Verdict, reasons, estimated accuracy and figures of an adapted version, else null."""
    lineage: Lineage
    card: dict[str, Any]
    """The whole card of the bundle."""


OptionalLanguage = Annotated[
    Annotated[str, Field(max_length=64)] | None, BeforeValidator(given_language)
]


class _Choice(_Part):
    # A misspelt language would be promoted for all.
    model_config = ConfigDict(extra="forbid")


class VersionChoice(_Choice):
    """A version, and the language for which it shall answer."""

    version: str = Field(max_length=128)
    language: OptionalLanguage = None
    """BCP-47; the version's own language by default."""


class ShadowChoice(_Choice):
    """The version that shall score a language's requests without answering; null ends that."""

    version: str | None = Field(max_length=128)
    language: OptionalLanguage = None
    """BCP-47; the version's own language by default, und if the version is null."""


class RollbackChoice(_Choice):
    """The language whose latest promotion is undone."""

    language: OptionalLanguage = None
    """BCP-47; the language of the latest promotion by default."""


class AliasesAnswer(_Part):
    """The aliases of a model after a change."""

    name: str
    aliases: dict[str, AliasesPart]


@router.get("", dependencies=[Readers], response_model_exclude_defaults=True)
def list_models(services: TheServices) -> ModelList:
    """List the models and their versions."""
    return ModelList(models=[_entry(services, name) for name in services.registry.names()])


@router.get(
    "/{name}",
    responses=problems(404, 422),
    dependencies=[Readers],
    response_model_exclude_defaults=True,
)
def show_model(name: str, services: TheServices) -> ModelEntry:
    """Show one model."""
    return _entry(services, name)


@router.get("/{name}/{version}", responses=problems(404, 422, 503), dependencies=[Readers])
def show_version(name: str, version: str, services: TheServices) -> VersionDetail:
    """Show one version: its card, metrics, evidence and origin."""
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
    """Let a version answer for a language, after it is loaded and has passed its probe."""
    return _answer(name, services.serving.promote(name, choice.version, choice.language))


@router.post("/{name}/rollback", responses=problems(404, 409, 422, 503), dependencies=[Admins])
def rollback(
    name: str, services: TheServices, choice: RollbackChoice | None = None
) -> AliasesAnswer:
    """Undo the latest promotion."""
    return _answer(name, services.serving.rollback(name, choice.language if choice else None))


@router.post("/{name}/shadow", responses=problems(404, 422, 503), dependencies=[Admins])
def shadow(name: str, choice: ShadowChoice, services: TheServices) -> AliasesAnswer:
    """Let a version score a language's requests without answering."""
    return _answer(name, services.serving.shadow(name, choice.version, choice.language))


@router.delete(
    "/{name}/{version}",
    status_code=204,
    responses=problems(404, 409, 422, 503),
    dependencies=[Admins],
)
def delete_version(name: str, version: str, services: TheServices) -> Response:
    """Delete a version that no alias uses."""
    services.registry.delete(name, version)
    return Response(status_code=204)


def _entry(services: Services, name: str) -> ModelEntry:
    registry = services.registry
    return ModelEntry(
        name=name,
        versions=registry.versions(name),
        aliases=_parts(registry.aliases(name)),
        figures=[FiguresPart.model_validate(one) for one in services.traffic.figures(name)],
        warnings=[*services.serving.warnings(name), *registry.outdated(name).values()],
    )


def _answer(name: str, aliases: dict[str, Aliases]) -> AliasesAnswer:
    return AliasesAnswer(name=name, aliases=_parts(aliases))


def _parts(aliases: dict[str, Aliases]) -> dict[str, AliasesPart]:
    return {language: AliasesPart(**asdict(held)) for language, held in aliases.items()}
