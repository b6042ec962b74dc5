"""What an adaptation tells of itself."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["improved", "no change", "reject"]
"""What the evidence says: to be used, as good as the base, or not to be used."""


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Estimate(_Part):
    """An accuracy nobody measured."""

    value: float
    """In [0, 1]."""
    error: float
    """How far from the true accuracy such estimates are on average, in [0, 1]."""


class Evidence(_Part):
    """What can be said about an adapted head without labels."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """Sentences for people: why this verdict."""
    estimated_accuracy: Estimate | None
    figures: dict[str, float]
    """All that was looked at, by name."""


class Base(_Part):
    """The bundle that was adapted."""

    version: str
    """The name of its folder."""
    digest: str
    """sha256 of its card."""


class Clips(_Part):
    """The files of the target folder."""

    accepted: int
    skipped: dict[str, int]
    """How many were left out, by reason."""
    examples: dict[str, tuple[str, ...]]
    """Up to five of them by reason, relative to the folder."""


class AdaptationReport(_Part):
    """The answer of ``nnpm adapt --json``."""

    method: str
    full: bool = False
    """Whether ``--full`` moved the encoder as well; the evidence is then of the head's part."""
    seed: int
    language: str
    base: Base
    clips: Clips
    windows: int
    """Stretches of speech that were learnt from: more than the clips where some are long."""
    verdict: Verdict
    reasons: tuple[str, ...]
    estimated_accuracy: Estimate | None
    evidence: dict[str, float]
    seconds: dict[str, float]
    """What each stage took."""
    bundle: str | None
    """Where the adapted bundle stands; null where none was written."""

    def for_card(self) -> dict[str, object]:
        """The part that goes with the bundle: nothing of this machine, this hour or these files."""
        return self.model_dump(
            mode="json", exclude={"seconds": True, "bundle": True, "clips": {"examples"}}
        )
