"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("seat_key", sa.Text(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("plan", sa.String(length=64), nullable=False),
        sa.Column("upstream_account_id", sa.String(length=256), nullable=False),
        sa.Column("user_id", sa.String(length=256), nullable=False),
        sa.Column("workspace_id", sa.String(length=256), nullable=False),
        sa.Column("workspace_label", sa.String(length=256), nullable=False),
        sa.Column("seat_type", sa.String(length=64), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=False),
        sa.Column("status_changed_at", sa.Double(), nullable=False),
        sa.Column("reset_at", sa.Double(), nullable=True),
        sa.Column("blocked_at", sa.Double(), nullable=True),
        sa.Column("resume_to", sa.String(length=32), nullable=True),
        sa.Column("resume_reason", sa.Text(), nullable=False),
        sa.Column("cooldown_until", sa.Double(), nullable=True),
        sa.Column("cooldown_reason", sa.Text(), nullable=False),
        sa.Column("access_token", sa.LargeBinary(), nullable=True),
        sa.Column("refresh_token", sa.LargeBinary(), nullable=True),
        sa.Column("id_token", sa.LargeBinary(), nullable=True),
        sa.Column("refresh_token_sha256", sa.String(length=64), nullable=False),
        sa.Column("credential_version", sa.Integer(), nullable=False),
        sa.Column("credential_obtained_at", sa.Double(), nullable=False),
        sa.Column("refreshed_at", sa.Double(), nullable=True),
        sa.Column("access_expires_at", sa.Double(), nullable=True),
        sa.Column("rejected_version", sa.Integer(), nullable=False),
        sa.Column("signalled_at", sa.Double(), nullable=True),
        sa.Column("signalled_event", sa.String(length=200), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("max_streams", sa.Integer(), nullable=True),
        sa.Column("max_response_creates", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("seat_key"),
    )
    op.create_index(op.f("ix_accounts_status"), "accounts", ["status"], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hint", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("account_ids", sa.JSON(), nullable=False),
        sa.Column("max_streams", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key_sha256"),
    )
    op.create_table(
        "controller",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "limit_changes",
        sa.Column("resource", sa.String(length=128), nullable=False),
        sa.Column("field", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("resource", "field"),
    )
    op.create_table(
        "login_flows",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("target_account_id", sa.String(length=128), nullable=True),
        sa.Column("account_id", sa.String(length=128), nullable=True),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("user_code", sa.String(length=64), nullable=False),
        sa.Column("interval", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_login_flows_state"), "login_flows", ["state"], unique=False)
    op.create_index(op.f("ix_login_flows_status"), "login_flows", ["status"], unique=False)
    op.create_table(
        "account_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("from_status", sa.String(length=32), nullable=False),
        sa.Column("to_status", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_account_changes_account_id"), "account_changes", ["account_id"], unique=False)
    op.create_table(
        "refresh_intents",
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("refresh_token_sha256", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_table(
        "usage_samples",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("used_percent", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_usage_samples_account_id"), "usage_samples", ["account_id"], unique=False)
    op.create_index(op.f("ix_usage_samples_recorded_at"), "usage_samples", ["recorded_at"], unique=False)
    op.create_table(
        "usage_states",
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("told_at", sa.Double(), nullable=True),
        sa.Column("has_credits", sa.Boolean(), nullable=False),
        sa.Column("unlimited_credits", sa.Boolean(), nullable=False),
        sa.Column("credit_balance", sa.String(length=64), nullable=False),
        sa.Column("cooldown_until", sa.Double(), nullable=True),
        sa.Column("cooldown_reason", sa.Text(), nullable=False),
        sa.Column("pending_plan", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seen_succeeded", sa.BigInteger(), nullable=False),
        sa.Column("seen_failed", sa.BigInteger(), nullable=False),
        sa.Column("seen_input", sa.BigInteger(), nullable=False),
        sa.Column("seen_cached", sa.BigInteger(), nullable=False),
        sa.Column("seen_output", sa.BigInteger(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_table(
        "usage_windows",
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("used_percent", sa.Double(), nullable=False),
        sa.Column("resets_at", sa.Double(), nullable=True),
        sa.Column("told_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account_id", "length"),
    )


def downgrade() -> None:
    op.drop_table("usage_windows")
    op.drop_table("usage_states")
    op.drop_index(op.f("ix_usage_samples_recorded_at"), table_name="usage_samples")
    op.drop_index(op.f("ix_usage_samples_account_id"), table_name="usage_samples")
    op.drop_table("usage_samples")
    op.drop_table("refresh_intents")
    op.drop_index(op.f("ix_account_changes_account_id"), table_name="account_changes")
    op.drop_table("account_changes")
    op.drop_index(op.f("ix_login_flows_status"), table_name="login_flows")
    op.drop_index(op.f("ix_login_flows_state"), table_name="login_flows")
    op.drop_table("login_flows")
    op.drop_table("limit_changes")
    op.drop_table("controller")
    op.drop_table("api_keys")
    op.drop_index(op.f("ix_accounts_status"), table_name="accounts")
    op.drop_table("accounts")
