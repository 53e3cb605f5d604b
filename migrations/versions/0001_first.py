"""Cluster, hosts, services, client keys, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cluster",
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cluster_id", sa.String(64), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("checked", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_cluster"),
    )
    op.create_table(
        "hosts",
        sa.Column("host_id", sa.String(63), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("joined", sa.Double(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("host_id", name="pk_hosts"),
    )
    op.create_table(
        "services",
        sa.Column("service", sa.String(127), nullable=False),
        sa.Column("host_id", sa.String(63), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.host_id"], name="fk_services_host_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("service", name="pk_services"),
    )
    op.create_index("ix_services_host_id", "services", ["host_id"])
    op.create_table(
        "client_keys",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name="pk_client_keys"),
        sa.UniqueConstraint("sha256", name="uq_client_keys_sha256"),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit"),
    )


def downgrade() -> None:
    raise NotImplementedError("a downgrade would lose data; restore a backup of the database instead")
