"""Remember the refresh tokens that were exchanged here, by their hashes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spent_tokens",
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("refresh_token_sha256", sa.String(length=64), nullable=False),
        sa.Column("spent_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account_id", "refresh_token_sha256"),
    )


def downgrade() -> None:
    op.drop_table("spent_tokens")
