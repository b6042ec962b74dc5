"""The table of jobs.

The types are spelt out: a step of the past does not change with service/jobs/tables.py.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("base", sa.Text),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("auto_promote", sa.Boolean, nullable=False),
        sa.Column("force", sa.Boolean, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("body_digest", sa.Text),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("eta_s", sa.Double),
        sa.Column("version", sa.Text),
        sa.Column("clips", sa.Text),
        sa.Column("verdict", sa.Text),
        sa.Column("estimated_accuracy", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("worker", sa.Text),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Double),
        sa.Column("not_before", sa.Double),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.UniqueConstraint("owner", "idempotency_key", name="jobs_idempotency"),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "created_at"])
    op.create_index("jobs_by_owner", "jobs", ["owner", "created_at"])


def downgrade() -> None:
    """Remove it."""
    op.drop_table("jobs")
