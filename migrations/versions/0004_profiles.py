"""Roles, aliases and benchmark samples."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "roles",
        sa.Column("role_id", sa.String(63), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("role_id", name="pk_roles"),
    )
    op.create_table(
        "aliases",
        sa.Column("alias", sa.String(512), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("alias", name="pk_aliases"),
    )
    op.create_table(
        "benchmark_samples",
        sa.Column("sample_id", sa.String(128), nullable=False),
        sa.Column("service", sa.String(127), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("workload", sa.Text(), nullable=False),
        sa.Column("measured", sa.Double(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sample_id", name="pk_benchmark_samples"),
    )
    op.create_index("ix_benchmark_samples_service", "benchmark_samples", ["service"])


def downgrade() -> None:
    raise NotImplementedError("a downgrade would lose data; restore a backup of the database instead")
