"""Database migrations; they run when a database is opened."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

_POSTGRES_LOCK = 0x6E6E706D  # "nnpm"; any number that is ours alone


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables up to date.

    Processes that start at the same time wait for one another: on SQLite by the writer's lock of
    the transaction, on Postgres by an advisory lock. A migration that fails changes nothing.

    Args:
        connection: in a write transaction.
        revision: the migration to stop at.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
    config = Config()
    # Alembic takes % for the beginning of a variable.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
