"""What follows from an event. The hub carries them out in their order."""

import msgspec

from geniehive.rules.model import Resource
from geniehive_control.core.refusal import Refusal


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be done."""


class Welcome(Effect, frozen=True, kw_only=True):
    """The session counts as `host_id`, whatever the hello said."""

    session_id: str
    host_id: str


class Refused(Effect, frozen=True, kw_only=True):
    """An item left out of an inventory. `upstream_name` None: the whole service."""

    service: str
    upstream_name: str | None = None
    refusal: Refusal


class AnswerInventory(Effect, frozen=True, kw_only=True):
    """It is stored and in force."""

    session_id: str
    revision: int
    refused: tuple[Refused, ...] = ()


class EndSession(Effect, frozen=True, kw_only=True):
    session_id: str
    refusal: Refusal


class EndSubscriber(Effect, frozen=True, kw_only=True):
    subscriber_id: str
    refusal: Refusal


class TellTrust(Effect, frozen=True, kw_only=True):
    """Whom to believe no more: serials. To this stream; None: to every node and gateway."""

    stream_id: str | None = None
    revoked: tuple[str, ...] = ()


class GiveCertificate(Effect, frozen=True, kw_only=True):
    """The answer to a request on this stream; it is stored. chain: PEM. renew_after: in seconds."""

    stream_id: str
    chain: bytes
    renew_after: float
    expires: float


class EndCallers(Effect, frozen=True, kw_only=True):
    """Streams that were opened with this key must end."""

    key_id: str
    refusal: Refusal


class Update(Effect, frozen=True, kw_only=True):
    """The next update of one gateway's table. Until it is acknowledged there is no other."""

    subscriber_id: str
    nonce: str
    changed: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()


class TellLoad(Effect, frozen=True, kw_only=True):
    """There is load that this gateway was not told of."""


class StoreHost(Effect, frozen=True, kw_only=True):
    """What `Registry.to_store` gives for this host must go to the database; the newest is enough."""

    host_id: str


class StoreSeen(Effect, frozen=True, kw_only=True):
    """When these hosts were last heard of: host_id to seconds since the epoch."""

    seen: dict[str, float]


class Changed(Effect, frozen=True, kw_only=True):
    """Hosts, services, roles and aliases that are new or gone; `cluster`: how the cluster is may be new.

    benchmarks: ids of samples that have become the newest of their kind, or no longer are.
    """

    hosts: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    aliases: frozenset[str] = frozenset()
    benchmarks: frozenset[str] = frozenset()
    cluster: bool = False


class Note(Effect, frozen=True, kw_only=True):
    """Something for the log. `grave`: an operator should look at it."""

    text: str
    grave: bool = False
