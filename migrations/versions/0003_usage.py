"""Usage by hour, and which reports of gateways are in it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COUNTS = (
    "requests", "requests_succeeded", "requests_cancelled", "requests_unserved", "attempts", "attempts_connect_failed",
    "attempts_upstream_failed", "attempts_timed_out", "attempts_cut", "attempts_refused", "requests_with_tokens",
    "prompt_tokens", "cached_tokens", "completion_tokens", "prefill_tokens", "decode_tokens", "cold_starts",
)  # fmt: skip
_SECONDS = ("prefill_seconds", "decode_seconds", "cold_start_seconds")
_BUCKETS = tuple(f"{name}_{number}" for name in ("first_token", "duration") for number in range(17))


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("operation", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("route_label", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        *(sa.Column(name, sa.Double(), nullable=False) for name in _SECONDS),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _BUCKETS),
        sa.PrimaryKeyConstraint("hour", "digest", name="pk_usage"),
    )
    op.create_table(
        "usage_reports",
        sa.Column("gateway_id", sa.String(256), nullable=False),
        sa.Column("instance_id", sa.String(256), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("gateway_id", "instance_id", name="pk_usage_reports"),
    )


def downgrade() -> None:
    raise NotImplementedError("a downgrade would lose data; restore a backup of the database instead")
