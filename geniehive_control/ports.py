"""What the hub needs from outside."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from geniehive.kit.tls import Issued, PublicKey
from geniehive.rules.identity import Peer, PeerKind
from geniehive.rules.model import Alias, BenchmarkSample, ClientKey, Role
from geniehive_control.core.benchmarks import Query as SampleQuery
from geniehive_control.core.records import Stored, StoredCertificate, StoredHost, StoredToken
from geniehive_control.core.usage import Batch, Group, Query, Who


class StoreUnavailable(Exception):
    """The database is locked, full or gone, and nothing was stored. The text is for an operator."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the audit log: who did what to which object. `at`: seconds since the epoch."""

    at: float
    caller: str
    action: str
    target: str


class Store(Protocol):
    """Whole steps: each is stored in full or, with StoreUnavailable, not at all."""

    async def load(self) -> Stored: ...

    async def put_hosts(self, hosts: Sequence[StoredHost]) -> None:
        """Replaces each with its services."""

    async def put_seen(self, seen: Mapping[str, float]) -> None:
        """When hosts were last heard of: host_id to seconds since the epoch."""

    async def forget_host(self, host_id: str, audit: Audit) -> None:
        """Its node's certificates are revoked too."""

    async def add_key(self, key: ClientKey, created: float, audit: Audit) -> None: ...

    async def revoke_key(self, key_id: str, audit: Audit) -> None: ...

    async def add_certificates(
        self, added: Sequence[StoredCertificate], audit: Audit, token_id: str | None = None
    ) -> bool:
        """token_id: the token that is used up by one for that; older certificates of the same peers are then revoked.

        False: the token can't be used any more, and nothing was stored.
        """

    async def revoke_peer(self, kind: PeerKind, peer_id: str, audit: Audit) -> None: ...

    async def add_token(self, token: StoredToken, audit: Audit) -> None: ...

    async def revoke_token(self, token_id: str, audit: Audit) -> None: ...

    async def add_usage(self, batch: Batch, at: float) -> None:
        """Adds its rows to what is there. The same batch may be written again, until it is known to be in there, and
        then counts once. at: seconds since the epoch."""

    async def usage(self, query: Query) -> list[Group]: ...

    async def prune_usage(self, first: int, since: float) -> Mapping[Who, int]:
        """Drops hours before `first`, and what is known of processes that reported nothing since `since`. Gives the
        last report of the others."""

    async def add_samples(self, samples: Sequence[BenchmarkSample], most: int, audit: Audit) -> set[str]:
        """Those whose ids are new, of which the ids are given; the oldest of each service, model and workload are
        dropped beyond `most`."""

    async def samples(self, query: SampleQuery) -> list[BenchmarkSample]: ...

    async def put_role(self, role: Role, audit: Audit) -> None: ...

    async def drop_role(self, role_id: str, audit: Audit) -> None: ...

    async def put_alias(self, alias: Alias, audit: Audit) -> None: ...

    async def drop_alias(self, alias: str, audit: Audit) -> None: ...

    async def ping(self) -> None:
        """Whether it takes writes; nothing that `load` gives is changed."""


class Issuer(Protocol):
    """The cluster's CA."""

    @property
    def bundle(self) -> bytes:
        """Whom to believe, in PEM."""

    @property
    def sha256(self) -> bytes:
        """Of the CA's certificate, as join tokens have it."""

    def read(self, csr: str) -> PublicKey:
        """The key of a request. ValueError, in words, if it is none."""

    def issue(self, key: PublicKey, peer: Peer, now: float, seconds: float) -> Issued:
        """now: seconds since the epoch."""
