"""What the hub needs from outside."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from geniehive.rules.model import ClientKey
from geniehive_control.core.records import Stored, StoredHost


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

    async def forget_host(self, host_id: str, audit: Audit) -> None: ...

    async def add_key(self, key: ClientKey, created: float, audit: Audit) -> None: ...

    async def revoke_key(self, key_id: str, audit: Audit) -> None: ...

    async def ping(self) -> None:
        """Whether it takes writes; nothing that `load` gives is changed."""
