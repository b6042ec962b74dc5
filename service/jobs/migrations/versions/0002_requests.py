"""What a request may say since: emotions, channels, a callback; evaluations beside adaptations.

The defaults are for the jobs that are there, and for an older release that is put back.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("kind", sa.String(16), nullable=False, server_default="adapt"),
        sa.Column("apply", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("emotions", sa.Text, nullable=False, server_default="[]"),
        sa.Column("channels", sa.Text, nullable=False, server_default='"mix"'),
        sa.Column("answered_share", sa.Text),
        sa.Column("callback_url", sa.Text),
        sa.Column("callback_at", sa.Double),
        sa.Column("callback_tries", sa.Integer, nullable=False, server_default="0"),
    )


def upgrade() -> None:
    """Add the columns."""
    for column in _columns():
        op.add_column("jobs", column)
    op.create_index("jobs_by_callback", "jobs", ["callback_at"])


def downgrade() -> None:
    """Remove them."""
    op.drop_index("jobs_by_callback", "jobs")
    for column in _columns():
        op.drop_column("jobs", column.name)
