"""The card of a bundle, ``bundle.json``, checked field by field; and the emotion vocabulary.

The emotions that a bundle answers, and their order, are those of its card.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .errors import ParameterError

EMOTIONS = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""Every emotion that a corpus may be labelled with; calm is not neutral."""

CORE_EMOTIONS = ("angry", "happy", "neutral", "sad")
"""The four that all corpora share; the published tables are about them."""

SCHEMA_VERSION: Literal[2] = 2
"""Of new bundles. Bundles of schema 1 load and answer, and cannot be adapted."""

DEFAULT_NAME = "default"
"""Name of the model that answers when a request names none."""

DEFAULT_LANGUAGE = "und"
"""Language of requests that name none, and of bundles that were adapted to none."""


def canonical_language(tag: str) -> str:
    """Write a BCP-47 language tag in its canonical form.

    Raises:
        ParameterError: if it is not a language tag.

    Examples:
        >>> canonical_language("PT_br"), canonical_language("urd")
        ('pt-BR', 'ur')
    """
    import langcodes  # takes 0.1 s, and whoever reads a card needs none of it

    if len(tag) > 64 or not langcodes.tag_is_valid(tag):
        raise ParameterError(
            f"language is {tag[:64]!r}; it must be a BCP-47 tag such as ur, de or pt-BR."
        )
    return langcodes.standardize_tag(tag)


def given_language(tag: str | None) -> str | None:
    """Write a language tag that a user gave in its canonical form.

    Returns:
        None if it is empty or ``auto``, which mean that no language was given.

    Raises:
        ValueError: if it is not a language tag.

    Examples:
        >>> given_language("zh_CN"), given_language(" AUTO "), given_language("")
        ('zh-CN', None, None)
    """
    if not isinstance(tag, str):
        return tag  # pydantic says what it must be
    if tag.strip().lower() in ("", "auto"):
        return None
    try:
        return canonical_language(tag.strip())
    except ParameterError as error:
        raise ValueError(str(error)) from None


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"it names {', '.join(names)[:64]}; no name may be there twice.")
    return names


Share = Annotated[float, Field(ge=0, le=1)]
"""A probability, or a part of a whole."""
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Biases = tuple[Annotated[float, Field(ge=-1e3, le=1e3)], ...]
Labels = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Decision(_Part):
    """How logits and memory are combined into an answer; fitted on source validation speakers.

    ``p = (1 - w) softmax(logits / temperature + logit_bias) + w vote``, where
    ``vote = softmax((similarities + vote_bias) / vote_temperature)``. What is compared are the
    memory's prototypes; in the first generation all of its slots.
    """

    temperature: Temperature
    """Divides the logits."""
    vote_weight: Share
    """w, the share of the memory's vote."""
    vote_temperature: Temperature
    """Divides the mean similarities of the vote."""
    vote_slots: Annotated[int, Field(ge=1)]
    """How many of the most similar prototypes of each emotion vote."""
    low_confidence: Share
    """Abstain below this confidence."""
    out_of_domain: Share
    """Abstain above this out-of-domain figure."""
    domain_slots: Annotated[int, Field(ge=1)]
    """How many of the nearest prototypes the out-of-domain distance is the mean of."""
    domain_midpoint: float
    """Similarity (minus that distance) at which the out-of-domain figure is 0.5."""
    domain_slope: Annotated[float, Field(gt=0.0)]
    """How steeply the figure falls: ``1 / (1 + exp(slope * (similarity - midpoint)))``."""
    logit_bias: Biases = ()
    """Added to the logits over the temperature, one number per emotion; empty for none."""
    vote_bias: Biases = ()
    """Added to the mean similarities of the vote, one number per emotion; empty for none."""


class Card(_Part):
    """The contents of ``bundle.json``."""

    format: Literal["nnpm-bundle"] = "nnpm-bundle"
    schema_version: Literal[1, 2] = SCHEMA_VERSION
    created_at: str
    nnpm_version: str
    labels: Labels
    """Emotions in the order of the logits."""
    emotions: Annotated[tuple[str, ...], AfterValidator(_distinct)] = ()
    """Those that are answered unless a request names others; empty for all."""
    sample_rate_hz: Literal[16_000] = 16_000
    window_s: Annotated[float, Field(ge=0.5, le=10.0)]
    hop_s: Annotated[float, Field(ge=0.1, le=10.0)]
    decision: Decision
    calibrated: bool
    """Whether the confidence was calibrated on labelled speech of the target kind."""
    language: str = DEFAULT_LANGUAGE
    """BCP-47 tag of the language it was adapted to; und if none."""
    source_languages: tuple[str, ...]
    parent: str | None = None
    """sha256 of the card of the bundle it was adapted from."""
    licence: str
    training: dict[str, Any]
    """Corpora with licences, recipe, seed, command."""
    metrics: dict[str, Any]
    files: dict[str, str] = {}
    """sha256 of every file but the card, by name."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The emotions that are answered unless a request names others, in the labels' order."""
        return tuple(label for label in self.labels if label in (self.emotions or self.labels))

    @model_validator(mode="after")
    def _emotions_are_labels(self) -> "Card":
        if unknown := [name for name in self.emotions if name not in self.labels]:
            raise ValueError(
                f"emotions names {', '.join(unknown)[:64]}; the labels are "
                f"{', '.join(self.labels)}."
            )
        return self

    @model_validator(mode="after")
    def _one_bias_per_emotion(self) -> "Card":
        for name in ("logit_bias", "vote_bias"):
            if (count := len(getattr(self.decision, name))) not in (0, len(self.labels)):
                raise ValueError(
                    f"decision.{name} has {count} numbers; it must have "
                    f"{len(self.labels)}, one per emotion, or none."
                )
        return self
