"""What becomes of a job, and what may become of it next.

The names of the ways to adapt; training/adaptation has the ways themselves.

One adaptation job, as the store holds it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from uuid import uuid4


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    PREPARING = "preparing"
    """Its audio is unpacked and checked."""
    ADAPTING = "adapting"
    EVALUATING = "evaluating"
    """The evidence is gathered, and the bundle written."""
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It cannot be carried out: its error says why."""
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    """By the evidence: nothing is published."""
    INTERRUPTED = "interrupted"
    """The processes that worked on it died, as often as one is tried."""


RUNNING = frozenset({State.PREPARING, State.ADAPTING, State.EVALUATING, State.PUBLISHING})
"""A worker has the job."""

ENDED = frozenset(
    {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.REJECTED, State.INTERRUPTED}
)
"""Nothing changes any more."""

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
"""The states that each may be followed by."""


def sources(state: State) -> frozenset[State]:
    """The states that ``state`` may follow.

    Examples:
        >>> sorted(sources(State.SUCCEEDED))
        [<State.PUBLISHING: 'publishing'>]
    """
    return frozenset(before for before, after in NEXT.items() if state in after)


METHODS = (
    "source_only",
    "adabn",
    "coral",
    "mmd",
    "dann",
    "entropy",
    "self_training",
    "nnpm",
)

DEFAULT_METHOD = "nnpm"


@dataclass(frozen=True, slots=True)
class Clips:
    """What was found in a job's audio.

    Attributes:
        accepted: files that were learnt from.
        skipped: how many were left out, by reason.
        examples: some of their names, by reason.
    """

    accepted: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy nobody measured.

    Attributes:
        value: in [0, 1].
        error: how far from the truth such estimates are on average, in [0, 1].
    """

    value: float
    error: float


def new_id() -> str:
    """Make a name for a job that no other has and nobody can guess."""
    return uuid4().hex


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One adaptation job.

    Attributes:
        id: also the name of its folder.
        owner: name of the API key that asked for it.
        name: of the model that gets a new version.
        language: BCP-47 in canonical form; und if unknown.
        method: of adaptation.
        source: where its audio comes from: ``folder:<path>``, ``archive`` or ``files``.
        base: version that is adapted; None for the one in use when work begins.
        seed: of everything drawn at random.
        auto_promote: put the version to use if the evidence says that it is better.
        force: publish whatever the evidence says.
        idempotency_key: of the request; unique per owner.
        body_digest: of the request, to tell a repetition from another use of the key.
        state: where it is.
        progress: in [0, 1].
        eta_s: seconds until the end; None while nobody knows.
        version: that came of it; None until then.
        clips: what was found in the audio; None until it has been looked at.
        verdict: of the evidence: improved, no change or reject.
        estimated_accuracy: None unless the evidence allows one.
        error: one sentence: why it failed or was rejected, or why it is being tried again.
        attempts: how often a worker took it.
        created_at: UTC.
        updated_at: UTC; of the last change that a user can see.
        started_at: when a worker first took it.
        ended_at: when it came to its end.
        worker: who has it.
        token: grows each time a worker takes it; one who shows an older token has lost it.
        lease_until: when another worker may take it.
        not_before: when it may be tried again after a failure that may pass.
        cancel_requested: whether its worker shall stop.
    """

    id: str = field(default_factory=new_id)
    owner: str
    name: str
    language: str
    method: str
    source: str
    base: str | None = None
    seed: int = 0
    auto_promote: bool = False
    force: bool = False
    idempotency_key: str | None = None
    body_digest: str | None = None
    state: State = State.QUEUED
    progress: float = 0.0
    eta_s: float | None = None
    version: str | None = None
    clips: Clips | None = None
    verdict: str | None = None
    estimated_accuracy: Estimate | None = None
    error: str | None = None
    attempts: int = 0
    created_at: datetime = field(default_factory=_now)
    updated_at: datetime = field(default_factory=_now)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    worker: str | None = None
    token: int = 0
    lease_until: datetime | None = None
    not_before: datetime | None = None
    cancel_requested: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED

    @property
    def running(self) -> bool:
        """Whether a worker has it."""
        return self.state in RUNNING
