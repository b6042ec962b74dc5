"""The database that replicas share: SQLite in a file or Postgres by URL; its tables."""

import importlib.util
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    exc,
    func,
    make_url,
    select,
)
from sqlalchemy.engine import URL

from .errors import StoreConfigurationError, StoreUnavailableError

metadata = MetaData()


class Time(TypeDecorator[datetime]):
    """A time as seconds since 1970, UTC: the same in every database, and easy to subtract."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """Convert to what the database holds."""
        return None if value is None else value.timestamp()

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert from what the database holds."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


class Json(TypeDecorator[Any]):
    """JSON as text: file names may hold characters that a database's JSON type refuses."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Convert to what the database holds."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Convert from what the database holds."""
        return None if value is None else json.loads(value)


class Sentence(TypeDecorator[str]):
    """Text that may quote anything; characters that no database stores are escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Convert to what the database holds."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


# migrations/ makes the tables; these are their columns for queries.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("apply", Boolean, nullable=False),
    Column("emotions", Json, nullable=False),
    Column("channels", Json, nullable=False),
    Column("source", Sentence, nullable=False),
    Column("base", Text),
    Column("seed", BigInteger, nullable=False),
    Column("auto_promote", Boolean, nullable=False),
    Column("force", Boolean, nullable=False),
    Column("keep_audio", Boolean, nullable=False),
    Column("idempotency_key", Text),
    Column("body_digest", Text),
    Column("state", String(16), nullable=False),
    Column("progress", Double, nullable=False),
    Column("eta_s", Double),
    Column("version", Text),
    Column("clips", Json),
    Column("verdict", Text),
    Column("estimated_accuracy", Json),
    Column("answered_share", Json),
    Column("error", Sentence),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
    Column("started_at", Time),
    Column("ended_at", Time),
    Column("worker", Text),
    Column("token", Integer, nullable=False),
    Column("lease_until", Time),
    Column("not_before", Time),
    Column("cancel_requested", Boolean, nullable=False),
    Column("callback_url", Text),
    Column("callback_at", Time),
    Column("callback_tries", Integer, nullable=False),
    UniqueConstraint("owner", "idempotency_key", name="jobs_idempotency"),
    Index("jobs_by_state", "state", "created_at"),
    Index("jobs_by_owner", "owner", "created_at"),
    Index("jobs_by_callback", "callback_at"),
)

tickets = Table(
    "tickets",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("scope", String(16), nullable=False),
    Column("key_id", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("page", Text),
    Column("expires_at", Time, nullable=False),
    Index("tickets_by_expiry", "expires_at"),
)

_WAIT_S = 10
"""Longest wait for another process's transaction, or for a server's answer."""

_MIGRATING = Lock()
"""Held during a migration: Alembic keeps the connection in a variable of the process."""

_TEMPORARY = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)
"""Errors that may pass: no server, a full disk, a lock held for too long."""


class Database:
    """Connections to one database; its tables are made or migrated at the first use.

    Args:
        url: ``sqlite:///<file>``, or ``postgresql://user@host/name``. It is opened at the first
            use, so that a service starts, and predicts, while its database is unavailable.

    Raises:
        StoreConfigurationError: if the kind of database is not supported, or its driver missing.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._engine = _engine(self._url)
        self._migrated = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for queries.

        Raises:
            StoreUnavailableError: if the database is unavailable.
        """
        with self._connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection whose changes are committed together when the block succeeds.

        Raises:
            StoreUnavailableError: if the database is unavailable; nothing is changed then, unless
                the connection broke during the commit.
        """
        with self._connect(writes=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all idle connections."""
        self._engine.dispose()

    @contextmanager
    def _connect(self, *, writes: bool = False) -> Iterator[Connection]:
        with self._unavailable():
            self._migrate()
            with self._engine.connect().execution_options(nnpm_writes=writes) as connection:
                yield connection

    def _migrate(self) -> None:
        if self._migrated:
            return
        from alembic.util import CommandError

        from .migrations import upgrade

        with _MIGRATING:
            if not self._migrated:
                if self._url.database and self._url.get_backend_name() == "sqlite":
                    Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
                with (
                    self._engine.connect().execution_options(nnpm_writes=True) as connection,
                    connection.begin(),
                ):
                    try:
                        upgrade(connection)
                    except CommandError as error:
                        raise StoreUnavailableError(
                            f"The database {self._url.render_as_string()} was made by a newer "
                            "nnpm; restore an older backup, or install that version again."
                        ) from error
                self._migrated = True

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except _TEMPORARY as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise StoreUnavailableError(
                f"The database {self._url.render_as_string()} cannot be used now: {reason}."
            ) from error
        except OSError as error:
            raise StoreUnavailableError(
                f"The database {self._url.render_as_string()} cannot be opened: {error.strerror}."
            ) from error


def now(connection: Connection) -> datetime:
    """The time by the database's clock, the only one that workers on several machines share."""
    if connection.dialect.name == "postgresql":
        moment: datetime | None = connection.scalar(select(func.clock_timestamp()))
        assert moment is not None
        return moment.astimezone(UTC)
    return datetime.now(UTC)


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except exc.ArgumentError:
        raise StoreConfigurationError(
            "NNPM_DATABASE_URL is not a URL; it must be like sqlite:///nnpm.db or "
            "postgresql://user@host/name."
        ) from None
    if backend in ("postgresql", "postgres"):
        if importlib.util.find_spec("psycopg") is None:
            raise StoreConfigurationError(
                "A Postgres database needs psycopg, which is not installed; "
                "install the postgres extra: pip install '.[postgres]' in the checkout."
            )
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreConfigurationError(
            f"NNPM_DATABASE_URL names a {backend} database; it must be sqlite or postgresql."
        )
    if url.database in (None, "", ":memory:"):
        raise StoreConfigurationError(
            "NNPM_DATABASE_URL names no file; it must be like sqlite:////folder/nnpm.db, because "
            "jobs in memory would be lost."
        )
    return url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _WAIT_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # pre-ping: the server may have restarted since a connection was made.
    wait_ms = 1000 * _WAIT_S
    # the last: a worker that freezes in a transaction must not keep its job from all others
    limits = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    options = " ".join(f"-c {limit}={wait_ms}" for limit in limits)
    return create_engine(
        url,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": _WAIT_S,
            "options": options,
            "keepalives_idle": _WAIT_S,
            "tcp_user_timeout": wait_ms,
        },
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite begins transactions, not the driver
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous=FULL")  # what was answered survives a loss of power


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log; SQLite refuses some of several processes that do so at once."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A writer locks at once: after a read, it could not lock once another process had written.
    writes = connection.get_execution_options().get("nnpm_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
