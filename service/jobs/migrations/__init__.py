"""The steps that bring an older database up to date, run whenever one is opened."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

_POSTGRES_LOCK = 0x6E6E706D  # "nnpm"; any number that is ours alone


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables up to date.

    Processes that start at once wait for one another: on SQLite by the writer's lock that the
    transaction holds, on Postgres by an advisory one. A step that fails leaves nothing.

    Args:
        connection: in a transaction that writes.
        revision: where to go.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
    config = Config()
    # Alembic reads % as the beginning of a variable.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
