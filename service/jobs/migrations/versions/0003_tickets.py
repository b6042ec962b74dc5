"""The table of tickets: what lets a browser in where it can send no key, once."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
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
    """Remove it."""
    op.drop_table("tickets")
