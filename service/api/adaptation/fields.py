"""What a request for an adaptation says, in JSON or as the fields of a form."""

from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from service.inference.errors import ParameterError
from service.jobs.methods import DEFAULT_METHOD, METHODS
from service.registry.registry import DEFAULT_LANGUAGE, DEFAULT_NAME, canonical


def _tag(language: str) -> str:
    try:
        return canonical(language)
    except ParameterError as error:
        raise ValueError(str(error)) from None


class AdaptFields(BaseModel):
    """How to adapt."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    language: Annotated[str, Field(max_length=64), AfterValidator(_tag)] = DEFAULT_LANGUAGE
    """BCP-47, of the recordings: ur, de, pt-BR; und if unknown."""

    name: str = Field(default=DEFAULT_NAME, max_length=128)
    """The model that gets a new version."""

    base: str | None = Field(default=None, max_length=128)
    """The version to adapt; the one that answers for the language unless told."""

    method: str = DEFAULT_METHOD
    """nnpm, or another way to adapt."""

    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Of everything that is drawn."""

    auto_promote: bool = False
    """Let the new version answer for the language as soon as it is there, if the evidence says
    that it is better."""

    force: bool = False
    """Publish even if the evidence says reject."""

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"method is {method[:64]!r}; one of {', '.join(METHODS)} is wanted.")
        return method

    @model_validator(mode="after")
    def _promotes_for_a_language(self) -> Self:
        if self.auto_promote and self.language == DEFAULT_LANGUAGE:
            raise ValueError(
                "auto_promote without a language would change the answers for all languages; "
                "name one, such as ur."
            )
        return self


class FolderFields(AdaptFields):
    """How to adapt, and to which folder of the server."""

    folder: str = Field(min_length=1, max_length=4096)
    """An absolute path under one of NNPM_ADAPT_ROOTS."""


Fields = TypeVar("Fields", bound=AdaptFields)


def parse(kind: type[Fields], data: bytes | Mapping[str, Any]) -> Fields:
    """Read a JSON document, or the fields of a form.

    Raises:
        ParameterError: one sentence for each field that cannot be used.
    """
    try:
        if isinstance(data, bytes):
            return kind.model_validate_json(data)
        return kind.model_validate(data)
    except ValidationError as error:
        raise ParameterError("; ".join(map(_sentence, error.errors()))) from None


def _sentence(error: Any) -> str:
    message = str(error["msg"])
    if error["type"] == "value_error":  # of ours: a sentence already
        return message.removeprefix("Value error, ")
    name = ".".join(str(part) for part in error["loc"])[:64] or "the body"
    if error["type"] == "json_invalid":
        return f"The body is no JSON that we read: {error['ctx']['error']}."
    if error["type"] == "extra_forbidden":
        return f"{name} is no field that we know."
    if error["type"] == "missing":
        return f"{name} is missing."
    return f"{name}: {message[:1].lower()}{message[1:]}, not {str(error['input'])[:64]!r}."
