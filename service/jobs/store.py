"""The jobs, in a database that several processes share."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from .database import Database, jobs, now
from .errors import KeyTakenError, LostLeaseError, TransitionError, UnknownJobError
from .job import ENDED, RUNNING, Change, Clips, Estimate, Job, Kind, State, sources

_WITHOUT_A_WORKER: dict[str, Any] = {"worker": None, "lease_until": None, "eta_s": None}

INTERRUPTED = "The processes that worked on the job died {count} times."


class JobStore:
    """The jobs in one database, for any number of processes and threads.

    A worker *claims* a job for a time, its lease, and renews the lease with *heartbeats*. Each
    claim gives the job a greater fencing token. A worker changes its job by showing its token, and
    is refused if there has been another claim since: a worker that was only slow cannot overwrite
    what its successor wrote. All times are by the database's clock.

    Args:
        url: ``sqlite:///<file>`` or ``postgresql://user@host/name``; it is opened at the first use.

    Raises:
        StoreConfigurationError: if the URL is not one of a supported database.

    Every method raises StoreUnavailableError while the database is unavailable.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        """For what else the replicas of a service share."""

    def create(self, job: Job) -> Job:
        """Add a job.

        Returns:
            The job as it is stored, with the time of the database.

        Raises:
            KeyTakenError: if its owner has used its idempotency key before.
        """
        try:
            with self.database.write() as connection:
                moment = now(connection)
                job = job.model_copy(update={"created_at": moment, "updated_at": moment})
                connection.execute(jobs.insert().values(job.model_dump()))
        except IntegrityError as error:
            raise KeyTakenError(
                f"The Idempotency-Key {job.idempotency_key!r} has been used for another job."
            ) from error
        return job

    def get(self, id: str) -> Job:  # noqa: A002 - the job's own word
        """Find a job.

        Raises:
            UnknownJobError: if there is no job of that id.
        """
        with self.database.read() as connection:
            return _get(connection, id)

    def list(self, owner: str | None = None, *, limit: int = 1000) -> list[Job]:
        """List the jobs of one owner, or all, newest first.

        Args:
            owner: None for all.
            limit: most jobs to list.
        """
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id).limit(limit)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self.database.read() as connection:
            return [_job_of(row) for row in connection.execute(query).mappings()]

    def find_idempotent(self, owner: str, key: str) -> Job | None:
        """Find the job that an owner made with an idempotency key."""
        with self.database.read() as connection:
            query = select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)
            row = connection.execute(query).mappings().one_or_none()
            return _job_of(row) if row else None

    def claim(self, worker_id: str, lease_s: float, *, tries: int = 3) -> Job | None:
        """Claim the oldest job without a worker: a queued one, or one whose lease has run out.

        A job that has been tried ``tries`` times is ended as interrupted instead.

        Args:
            worker_id: the worker.
            lease_s: seconds until another worker may claim it, unless there is a heartbeat.
            tries: most claims of one job.

        Returns:
            The job, in the state preparing, with a new fencing token; None if there is no job.
        """
        with self.database.read() as connection:  # most calls find no job, and need no lock
            if connection.execute(_waiting(now(connection))).first() is None:
                return None
        with self.database.write() as connection:
            moment = now(connection)
            while row := connection.execute(_next(moment)).mappings().first():
                job = _job_of(row)
                if job.cancel_requested:
                    _end(connection, job, moment, State.CANCELLED, None)
                elif job.attempts >= tries:
                    reason = job.error or INTERRUPTED.format(count=job.attempts)
                    _end(connection, job, moment, State.INTERRUPTED, reason)
                else:
                    return _set(
                        connection,
                        job.id,
                        state=State.PREPARING,
                        attempts=job.attempts + 1,
                        token=job.token + 1,
                        worker=worker_id,
                        lease_until=moment + timedelta(seconds=lease_s),
                        eta_s=None,
                        started_at=job.started_at or moment,
                        updated_at=moment,
                    )
        return None

    def heartbeat(self, id: str, token: int, lease_s: float) -> Job:  # noqa: A002
        """Renew a lease, also one that has run out if no other worker has claimed the job.

        Returns:
            The job; its ``cancel_requested`` says whether to stop.

        Raises:
            LostLeaseError: if another worker has the job, or it has ended.
            UnknownJobError: if the job was removed.
        """
        with self.database.write() as connection:
            lease_until = now(connection) + timedelta(seconds=lease_s)
            return _change(connection, id, token, RUNNING, {"lease_until": lease_until})

    def update(self, id: str, token: int, **changes: Any) -> Job:  # noqa: A002
        """Change a job that this worker has.

        Args:
            id: of the job.
            token: fencing token of the claim.
            **changes: fields of :class:`Job`. A final ``state`` also ends the claim.

        Returns:
            The job after the change.

        Raises:
            LostLeaseError: if another worker has the job, or it has ended; nothing is changed.
            TransitionError: if ``state`` may not follow the state of the job.
            UnknownJobError: if the job was removed.
        """
        state = changes.get("state")
        before = RUNNING if state is None else (sources(state) | {state}) & RUNNING
        with self.database.write() as connection:
            moment = now(connection)
            changes["updated_at"] = moment
            if state in ENDED:
                changes |= _WITHOUT_A_WORKER | {"ended_at": moment, "callback_at": moment}
            return _change(connection, id, token, before, changes)

    def give_back(
        self,
        id: str,  # noqa: A002
        token: int,
        *,
        delay_s: float = 0.0,
        error: str | None = None,
        counts: bool = True,
    ) -> Job:
        """Put a job that this worker has back into the queue.

        Args:
            id: of the job.
            token: fencing token of the claim.
            delay_s: seconds before it is tried again.
            error: why it failed.
            counts: whether the claim counts as a try; not if the worker was only asked to stop.

        Raises:
            LostLeaseError: if another worker has the job, or it has ended.
            UnknownJobError: if the job was removed.
        """
        with self.database.write() as connection:
            moment = now(connection)
            attempts = jobs.c.attempts if counts else jobs.c.attempts - 1
            changes: dict[str, Any] = {
                **_WITHOUT_A_WORKER,
                "state": State.QUEUED,
                "progress": 0.0,
                "attempts": attempts,
                "error": error,
                "not_before": moment + timedelta(seconds=delay_s) if delay_s else None,
                "updated_at": moment,
            }
            return _change(connection, id, token, RUNNING, changes)

    def request_cancel(self, id: str) -> Job:  # noqa: A002
        """Cancel a queued job at once, and ask the worker of a running one to stop.

        Returns:
            The job after the change; a job that has ended does not change.

        Raises:
            UnknownJobError: if there is no job of that id.
        """
        with self.database.write() as connection:
            moment = now(connection)
            job = _get(connection, id, lock=True)
            if job.state is State.QUEUED:
                return _end(connection, job, moment, State.CANCELLED, None)
            if job.running and not job.cancel_requested:
                return _set(connection, id, cancel_requested=True, updated_at=moment)
            return job

    def remove(self, id: str) -> None:  # noqa: A002
        """Delete a job; no error if there is none. A worker that has the job stops."""
        with self.database.write() as connection:
            connection.execute(jobs.delete().where(jobs.c.id == id))

    def claim_callback(self, waits_s: Sequence[float]) -> Job | None:
        """Claim the callback that has been due for longest: the job has ended, and nobody was told.

        Args:
            waits_s: seconds from each try to the next; with one more try than waits, the last.

        Returns:
            The job, its try counted; None if no callback is due.
        """
        with self.database.read() as connection:
            if connection.execute(_due(now(connection))).first() is None:
                return None
        with self.database.write() as connection:
            moment = now(connection)
            due = _due(moment).with_for_update(skip_locked=True)
            row = connection.execute(due).mappings().first()
            if row is None:
                return None
            job = _job_of(row)
            tries = job.callback_tries
            again = moment + timedelta(seconds=waits_s[tries]) if tries < len(waits_s) else None
            return _set(connection, job.id, callback_at=again, callback_tries=tries + 1)

    def end_callback(self, id: str) -> None:  # noqa: A002
        """Try the callback of a job no more."""
        with self.database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == id).values(callback_at=None))

    def counts(self) -> dict[State, int]:
        """Count the jobs in each state, including states without a job."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with self.database.read() as connection:
            found = {State(state): count for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in State}

    def durations(self) -> dict[State, tuple[int, float]]:
        """Sum the durations of ended jobs.

        Returns:
            For each final state: the number of jobs, and the sum of their seconds since the first
            claim.
        """
        seconds = func.sum(jobs.c.ended_at - jobs.c.started_at).label("seconds")
        query = (
            select(jobs.c.state, func.count().label("count"), seconds)
            .where(jobs.c.ended_at.is_not(None), jobs.c.started_at.is_not(None))
            .group_by(jobs.c.state)
        )
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return {State(row[0]): (row[1], float(row[2])) for row in rows}

    def oldest_queued_s(self) -> float:
        """Seconds that the oldest queued job has waited; 0 if no job is queued."""
        query = select(func.min(jobs.c.created_at)).where(jobs.c.state == State.QUEUED)
        with self.database.read() as connection:
            oldest = connection.scalar(query)
            return max(0.0, (now(connection) - oldest).total_seconds()) if oldest else 0.0

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.database.close()


def _next(moment: datetime) -> Any:
    # Skips rows that other workers are claiming; SQLite has one writer and needs no lock.
    return _waiting(moment).with_for_update(skip_locked=True)


def _waiting(moment: datetime) -> Any:
    queued = and_(
        jobs.c.state == State.QUEUED,
        or_(jobs.c.not_before.is_(None), jobs.c.not_before <= moment),
    )
    left = and_(jobs.c.state.in_(list(RUNNING)), jobs.c.lease_until < moment)
    return select(jobs).where(or_(queued, left)).order_by(jobs.c.created_at, jobs.c.id).limit(1)


def _due(moment: datetime) -> Any:
    due = and_(jobs.c.callback_url.is_not(None), jobs.c.callback_at <= moment)
    return select(jobs).where(due).order_by(jobs.c.callback_at, jobs.c.id).limit(1)


def _get(connection: Connection, id: str, *, lock: bool = False) -> Job:  # noqa: A002
    query = select(jobs).where(jobs.c.id == id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise UnknownJobError(f"There is no job {id!r}.")
    return _job_of(row)


def _set(connection: Connection, id: str, **changes: Any) -> Job:  # noqa: A002
    connection.execute(update(jobs).where(jobs.c.id == id).values(_plain(changes)))
    return _get(connection, id)


def _end(
    connection: Connection, job: Job, moment: datetime, state: State, error: str | None
) -> Job:
    times = {"updated_at": moment, "ended_at": moment, "callback_at": moment}
    return _set(connection, job.id, state=state, error=error, **_WITHOUT_A_WORKER, **times)


def _change(
    connection: Connection,
    id: str,  # noqa: A002
    token: int,
    before: frozenset[State],
    changes: dict[str, Any],
) -> Job:
    own: list[ColumnElement[bool]] = [jobs.c.id == id, jobs.c.token == token]
    statement = update(jobs).where(*own, jobs.c.state.in_(list(before))).values(_plain(changes))
    if connection.execute(statement).rowcount == 1:
        return _get(connection, id)
    job = _get(connection, id)
    if job.token != token or not job.running:
        raise LostLeaseError(
            f"Job {id} is {job.state} under claim {job.token}; claim {token} is no longer valid."
        )
    raise TransitionError(f"Job {id} is {job.state}, which {changes['state']} cannot follow.")


def _plain(changes: dict[str, Any]) -> dict[str, Any]:
    """Convert values to what the columns hold."""
    return {
        name: asdict(value) if isinstance(value, Clips | Estimate | Change) else value
        for name, value in changes.items()
    }


def _job_of(row: RowMapping) -> Job:
    values = dict(row)
    clips, estimate = values["clips"], values["estimated_accuracy"]
    if clips is not None:
        examples: dict[str, Sequence[str]] = clips["examples"]
        tuples = {reason: tuple(names) for reason, names in examples.items()}
        passed_over = clips.get("passed_over", {})
        values["clips"] = Clips(clips["accepted"], clips["skipped"], tuples, passed_over)
    if estimate is not None:
        values["estimated_accuracy"] = Estimate(**estimate)
    if values["answered_share"] is not None:
        values["answered_share"] = Change(**values["answered_share"])
    values |= {"emotions": tuple(values["emotions"]), "kind": Kind(values["kind"])}
    # Unchecked: a job of an older release may name a method that is gone, and can still be read.
    return Job.model_construct(**values | {"state": State(values["state"])})
