"""The tables. `migrations/` must lead to exactly these; a test compares them.

Times are seconds since the epoch. A `body` is JSON of the noun in `geniehive.rules.model` or `core.records`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from geniehive_control.core.usage import NUMBERS, SECONDS

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row, made when the database is.
cluster = Table(
    "cluster",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("cluster_id", String(64), nullable=False),
    Column("created", Double, nullable=False),
    # When control last tried whether the database takes writes.
    Column("checked", Double, nullable=False),
)

hosts = Table(
    "hosts",
    metadata,
    Column("host_id", String(63), primary_key=True),
    Column("body", Text, nullable=False),
    Column("joined", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("online", Boolean, nullable=False),
)

services = Table(
    "services",
    metadata,
    # "host/service"
    Column("service", String(127), primary_key=True),
    Column("host_id", String(63), ForeignKey("hosts.host_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("body", Text, nullable=False),
)

client_keys = Table(
    "client_keys",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    # Words with spaces between them: "infer read".
    Column("scopes", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
)

certificates = Table(
    "certificates",
    metadata,
    # Hexadecimal, lower case.
    Column("serial", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("peer_id", String(63), nullable=False),
    Column("machine_id", String(128)),
    Column("issued", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("revoked", Double),
    # What it was given for: a word of core.records.Origin.
    Column("origin", String(16), nullable=False),
    Index("ix_certificates_kind", "kind", "peer_id"),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("token_id", String(64), primary_key=True),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    # Words with spaces between them: "gateway node".
    Column("kinds", Text, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("revoked", Double),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    # A key_id, or how else the caller came.
    Column("caller", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
)

# Sums of one hour; what was added last is in no other table.
usage = Table(
    "usage",
    metadata,
    # Since the epoch.
    Column("hour", Integer, primary_key=True, autoincrement=False),
    # Of the five that follow: these may be too long for an index.
    Column("digest", String(32), primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("operation", Integer, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("route_label", Text, nullable=False),
    # Of `endpoint`, to sum by.
    Column("host", Text, nullable=False),
    Column("service", Text, nullable=False),
    *(Column(name, Double if name in SECONDS else BigInteger, nullable=False) for name in NUMBERS),
)

# The last report of each gateway process that is in `usage`.
usage_reports = Table(
    "usage_reports",
    metadata,
    Column("gateway_id", String(256), primary_key=True),
    Column("instance_id", String(256), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)

# Those made by operators; what a file has is in the file.
roles = Table(
    "roles",
    metadata,
    Column("role_id", String(63), primary_key=True),
    Column("body", Text, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    # A name or a glob.
    Column("alias", String(512), primary_key=True),
    Column("target", Text, nullable=False),
)

benchmark_samples = Table(
    "benchmark_samples",
    metadata,
    Column("sample_id", String(128), primary_key=True),
    # "host/service". It may be gone: what was measured stays.
    Column("service", String(127), nullable=False, index=True),
    Column("asset_id", Text, nullable=False),
    Column("workload", Text, nullable=False),
    Column("measured", Double, nullable=False),
    Column("body", Text, nullable=False),
)
