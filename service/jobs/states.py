"""What becomes of a job, and what may become of it next."""

from enum import StrEnum


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
