"""The emotion vocabulary. The order in force for a prediction is its bundle's.

The card of a bundle: what ``bundle.json`` says, checked field by field.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

EMOTIONS = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""Every emotion that a corpus module may answer; calm is not neutral."""

CORE_EMOTIONS = ("angry", "happy", "neutral", "sad")
"""The four that all corpora share: those of the published tables."""

SCHEMA_VERSION: Literal[1] = 1


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands there twice")
    return names


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Biases = tuple[Annotated[float, Field(ge=-1e3, le=1e3)], ...]
Labels = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Decision(_Part):
    """How logits and memory become an answer; fitted on source validation speakers.

    ``p = (1 - w) softmax(logits / temperature + logit_bias) + w vote``, where
    ``vote = softmax((similarities + vote_bias) / vote_temperature)``.
    """

    temperature: Temperature
    """Divides the logits."""
    vote_weight: Share
    """w: the share of the memory's vote."""
    vote_temperature: Temperature
    """Divides the mean similarities of the vote."""
    vote_slots: Annotated[int, Field(ge=1)]
    """The most similar slots of each emotion that vote."""
    low_confidence: Share
    """Abstain below this confidence."""
    out_of_domain: Share
    """Abstain above this out-of-domain figure."""
    domain_slots: Annotated[int, Field(ge=1)]
    """The nearest slots whose mean distance tells the domain."""
    domain_midpoint: float
    """Similarity, which is minus that distance, at which the out-of-domain figure is 0.5."""
    domain_slope: Annotated[float, Field(gt=0.0)]
    """How steeply it falls: ``1 / (1 + exp(slope * (similarity - midpoint)))``."""
    logit_bias: Biases = ()
    """Added to the logits over the temperature, one number per emotion; empty for none."""
    vote_bias: Biases = ()
    """Added to the mean similarities of the vote, one number per emotion; empty for none."""


class Card(_Part):
    """What ``bundle.json`` says."""

    format: Literal["nnpm-bundle"] = "nnpm-bundle"
    schema_version: Literal[1] = SCHEMA_VERSION
    created_at: str
    nnpm_version: str
    labels: Labels
    """Emotions in the order of the logits."""
    sample_rate_hz: Literal[16_000] = 16_000
    window_s: Annotated[float, Field(ge=0.5, le=10.0)]
    hop_s: Annotated[float, Field(ge=0.1, le=10.0)]
    decision: Decision
    calibrated: bool
    """Whether the confidence was calibrated on labels of the kind of speech it is for."""
    language: str = "und"
    """The language it was adapted to, und if none."""
    source_languages: tuple[str, ...]
    parent: str | None = None
    """Digest of the card of the bundle it was adapted from."""
    licence: str
    training: dict[str, Any]
    """Corpora with licences, recipe, seed, command."""
    metrics: dict[str, Any]
    files: dict[str, str] = {}
    """sha256 of every file."""

    @model_validator(mode="after")
    def _a_bias_per_emotion(self) -> "Card":
        for name in ("logit_bias", "vote_bias"):
            if (count := len(getattr(self.decision, name))) not in (0, len(self.labels)):
                raise ValueError(
                    f"decision.{name} holds {count} numbers for {len(self.labels)} emotions"
                )
        return self
