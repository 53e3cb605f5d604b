"""Certificates that were issued, and join tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("peer_id", sa.String(63), nullable=False),
        sa.Column("machine_id", sa.String(128), nullable=True),
        sa.Column("issued", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_certificates"),
    )
    op.create_index("ix_certificates_kind", "certificates", ["kind", "peer_id"])
    op.create_table(
        "join_tokens",
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("kinds", sa.Text(), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name="pk_join_tokens"),
        sa.UniqueConstraint("sha256", name="uq_join_tokens_sha256"),
    )


def downgrade() -> None:
    raise NotImplementedError("a downgrade would lose data; restore a backup of the database instead")
