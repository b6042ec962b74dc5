"""One adaptation job as the store holds it: its states, and the steps between them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from uuid import uuid4

from pydantic import Field

from .folder import JobRequest


class State(StrEnum):
    """State of a job."""

    QUEUED = "queued"
    PREPARING = "preparing"
    """The audio is being unpacked and checked."""
    ADAPTING = "adapting"
    EVALUATING = "evaluating"
    """The evidence is being gathered, and the bundle written."""
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The job cannot be carried out; its error says why."""
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    """The evidence is against the new version: it is not published."""
    INTERRUPTED = "interrupted"
    """The processes that worked on the job died, as often as a job may be tried."""


RUNNING = frozenset({State.PREPARING, State.ADAPTING, State.EVALUATING, State.PUBLISHING})
"""States in which a worker has the job."""

ENDED = frozenset(
    {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.REJECTED, State.INTERRUPTED}
)
"""Final states."""

# Whatever stage a job is in, its worker may die, be stopped, or fail.
_ANEW_OR_OVER = frozenset(
    {State.PREPARING, State.QUEUED, State.FAILED, State.CANCELLED, State.INTERRUPTED}
)

NEXT: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PREPARING, State.CANCELLED}),
    # A worker that takes over finds a child that is further on, or one that is done.
    State.PREPARING: _ANEW_OR_OVER
    | {State.ADAPTING, State.EVALUATING, State.PUBLISHING, State.REJECTED},
    State.ADAPTING: _ANEW_OR_OVER | {State.EVALUATING, State.PUBLISHING, State.REJECTED},
    State.EVALUATING: _ANEW_OR_OVER | {State.PUBLISHING, State.REJECTED},
    State.PUBLISHING: _ANEW_OR_OVER | {State.SUCCEEDED},
    **{state: frozenset() for state in ENDED},
}
"""The states that may follow each state."""


def sources(state: State) -> frozenset[State]:
    """The states that ``state`` may follow.

    Examples:
        >>> sorted(sources(State.SUCCEEDED))
        [<State.PUBLISHING: 'publishing'>]
    """
    return frozenset(before for before, after in NEXT.items() if state in after)


@dataclass(frozen=True, slots=True)
class Clips:
    """The recordings of a job, counted.

    Attributes:
        accepted: recordings that the adaptation used.
        skipped: number of recordings left out, by reason.
        examples: some of the names of those and of what was passed over, by reason.
        passed_over: number of files that are no recordings, by reason.
    """

    accepted: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy that was estimated without labels.

    Attributes:
        value: in [0, 1].
        error: mean absolute error of such estimates, in [0, 1].
    """

    value: float
    error: float


def new_id() -> str:
    """Make a job id that no other job has and nobody can guess."""
    return uuid4().hex


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of the base, and the same of the new version, on the same recordings."""

    before: float
    after: float


class Kind(StrEnum):
    """What a job does."""

    ADAPT = "adapt"
    EVALUATE = "evaluate"
    """Scores the base on labelled recordings; may publish it with another calibration."""

    @property
    def noun(self) -> str:
        """What its report is called."""
        return "Adaptation" if self is Kind.ADAPT else "Evaluation"


class Job(JobRequest):
    """One job: its request, and what has become of it."""

    kind: Kind = Kind.ADAPT
    apply: bool = False
    """Of an evaluation: whether the recalibrated version is published."""

    id: str = Field(default_factory=new_id)
    """Also the name of the job's folder."""
    owner: str
    """Name of the API key that sent the request."""
    source: str
    """Where the audio comes from: ``folder:<path>``, ``archive`` or ``files``."""
    idempotency_key: str | None = None
    """Of the request; unique per owner."""
    body_digest: str | None = None
    """sha256 of the request: tells a repetition from another use of the idempotency key."""
    callback_url: str | None = None
    """Where the end of the job is posted."""
    state: State = State.QUEUED
    progress: float = 0.0
    """In [0, 1]."""
    eta_s: float | None = None
    """Seconds until the end; None if unknown."""
    version: str | None = None
    """The version that the job published; None until then."""
    clips: Clips | None = None
    """None until the audio has been examined."""
    verdict: str | None = None
    """Of the evidence: improved, no change or reject."""
    estimated_accuracy: Estimate | None = None
    """None unless the evidence allows an estimate."""
    answered_share: Change | None = None
    """Share of the recordings that get an answer; None until the job has a report that says it."""
    error: str | None = None
    """One sentence: why the job failed or was rejected, or why it is tried again."""
    attempts: int = 0
    """How often a worker claimed the job."""
    created_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)
    """Time of the last change that a user can see."""
    started_at: datetime | None = None
    """When a worker first claimed the job."""
    ended_at: datetime | None = None
    worker: str | None = None
    """The worker that has the job."""
    token: int = 0
    """Fencing token: grows with each claim; a worker with an older token has lost the job."""
    lease_until: datetime | None = None
    """When another worker may claim the job."""
    not_before: datetime | None = None
    """When the job may be tried again after a failure that may pass."""
    cancel_requested: bool = False
    """Whether the worker of the job has to stop."""
    callback_at: datetime | None = None
    """When the callback is due; None if there is none, or no more."""
    callback_tries: int = 0
    """How often the callback was tried."""

    @property
    def ended(self) -> bool:
        """Whether the job's state is final."""
        return self.state in ENDED

    def keeps_audio(self, seconds: float) -> bool:
        """Whether its recordings may still be kept, so many seconds after its end."""
        since = self.ended_at
        return since is not None and (_now() - since).total_seconds() < seconds

    @property
    def running(self) -> bool:
        """Whether a worker has the job."""
        return self.state in RUNNING
