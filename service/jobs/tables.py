"""The table of jobs, for SQLAlchemy; migrations/ makes it."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData()


class Time(TypeDecorator[datetime]):
    """A moment as seconds since 1970, UTC: the same in every database, and good to reckon with."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else value.timestamp()

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


class Json(TypeDecorator[Any]):
    """Plain data as text: names of files may hold what a database's own JSON refuses."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """From the database."""
        return None if value is None else json.loads(value)


class Sentence(TypeDecorator[str]):
    """Text that may quote anything: what no database stores is escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """To the database."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("source", Sentence, nullable=False),
    Column("base", Text),
    Column("seed", BigInteger, nullable=False),
    Column("auto_promote", Boolean, nullable=False),
    Column("force", Boolean, nullable=False),
    Column("idempotency_key", Text),
    Column("body_digest", Text),
    Column("state", String(16), nullable=False),
    Column("progress", Double, nullable=False),
    Column("eta_s", Double),
    Column("version", Text),
    Column("clips", Json),
    Column("verdict", Text),
    Column("estimated_accuracy", Json),
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
    UniqueConstraint("owner", "idempotency_key", name="jobs_idempotency"),
    Index("jobs_by_state", "state", "created_at"),
    Index("jobs_by_owner", "owner", "created_at"),
)
