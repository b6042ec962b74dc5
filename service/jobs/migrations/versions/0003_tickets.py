"""What the page needs: tickets in the place of keys, and whether a job keeps audio."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and add the column; the default is for the jobs that are there."""
    op.add_column(
        "jobs", sa.Column("keep_audio", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.create_table(
        "tickets",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("page", sa.Text),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_index("tickets_by_expiry", "tickets", ["expires_at"])


def downgrade() -> None:
    """Remove them."""
    op.drop_column("jobs", "keep_audio")
    op.drop_table("tickets")
