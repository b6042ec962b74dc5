"""A job as JSON."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from service.jobs.job import Job
from service.jobs.states import State

Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class ClipsPart(_Part):
    """What was found in the audio."""

    accepted: int = 0
    """Recordings that were learnt from."""
    skipped: dict[str, int] = Field(default_factory=dict)
    """How many were left out, by reason: undecodable, too_short, too_long, no_speech, duplicate."""
    examples: dict[str, list[str]] = Field(default_factory=dict)
    """Some of their names, by reason."""


class EstimatePart(_Part):
    """An accuracy nobody measured."""

    value: Share
    error: Share
    """How far from the truth such estimates are on average."""


class JobPart(_Part):
    """One adaptation."""

    id: str
    owner: str
    """The key that asked for it; anonymous on an open service."""
    state: State
    progress: Share
    eta_s: float | None
    """Seconds until the end; null while nobody knows."""
    name: str
    """The model that gets a new version."""
    language: str
    """BCP-47."""
    method: str
    seed: int
    base: str | None
    """The version that is adapted; null until work begins, unless it was named."""
    auto_promote: bool
    force: bool
    version: str | None
    """What came of it; null until then."""
    clips: ClipsPart | None
    """Null until the audio has been listened to."""
    verdict: str | None
    """Of the evidence: improved, no change or reject."""
    estimated_accuracy: EstimatePart | None
    error: str | None
    """Why it failed or was rejected, or why it is being tried again."""
    attempts: int
    """How often a worker took it."""
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, job: Job) -> Self:
        """Leave out what is between the store and its workers."""
        return cls.model_validate(job)


class JobList(_Part):
    """The jobs that the caller may see, newest first."""

    jobs: list[JobPart]
