"""What Alembic runs: every step in the transaction that ``upgrade`` holds."""

from alembic import context

from nnpm.service.jobs.database import metadata

if hasattr(context, "config"):  # else it is only imported, as doctest does
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
