"""What can happen. Each is handed to `Registry.handle` with the time at which it did."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Alias, BenchmarkSample, ClientKey, Inventory, Load, Role, ServiceLoad
from geniehive_control.core.figures import EndpointOutcomes
from geniehive_control.core.probes import Check, Failure
from geniehive_control.core.reach import Place
from geniehive_control.core.records import StoredCertificate, StoredToken
from geniehive_control.core.trust import Certified


class Now(NamedTuple):
    """The time. `mono` only grows and decides; `wall` (seconds since the epoch) is for people, storing and expiry."""

    mono: float
    wall: float


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""


class SessionOpened(Event, frozen=True, kw_only=True):
    """A node said hello. `session_id` was made by the caller and is new."""

    session_id: str
    host_id: str
    machine_id: str | None = None
    instance_id: str = ""
    agent_version: str = ""
    # None: it proved itself by a node key.
    certificate: Certified | None = None


class InventorySent(Event, frozen=True, kw_only=True):
    session_id: str
    inventory: Inventory


class Heartbeat(Event, frozen=True, kw_only=True):
    """`sent`: the node's clock, seconds since the epoch."""

    session_id: str
    sent: float | None = None


class LoadSent(Event, frozen=True, kw_only=True):
    """`read` gives what was sent, `brief` of it what requests are balanced by: by service, with its age. They are
    called when somebody asks, which for most of what comes is never."""

    session_id: str
    read: Callable[[], Load] = Load
    brief: Callable[[], Iterable[ServiceLoad]] = tuple


# These come by the thousand a second, and nothing follows from them.
SIGNS_OF_LIFE = frozenset({Heartbeat, LoadSent})


class SessionClosed(Event, frozen=True, kw_only=True):
    """The stream ended, from whichever side."""

    session_id: str


class HostStored(Event, frozen=True, kw_only=True):
    """What `Registry.to_store` gave, with this `change`, is in the database."""

    host_id: str
    change: int


class HostForgotten(Event, frozen=True, kw_only=True):
    """An operator forgot it, or it left; it is gone from the database."""

    host_id: str
    left: bool = False


class KeyCreated(Event, frozen=True, kw_only=True):
    """It is in the database."""

    key: ClientKey
    created: float


class KeyRevoked(Event, frozen=True, kw_only=True):
    """It is so in the database."""

    key_id: str


class TokenCreated(Event, frozen=True, kw_only=True):
    """It is in the database."""

    token: StoredToken


class TokenRevoked(Event, frozen=True, kw_only=True):
    """It is so in the database."""

    token_id: str


class Enrolled(Event, frozen=True, kw_only=True):
    """A machine joined: in the database the token has one use less, and these certificates replace older ones."""

    token_id: str
    certificates: tuple[StoredCertificate, ...]


class CertificateIssued(Event, frozen=True, kw_only=True):
    """To who has an open stream. It is in the database."""

    certificate: StoredCertificate


class PeerRevoked(Event, frozen=True, kw_only=True):
    """All certificates of this peer are revoked in the database."""

    kind: PeerKind
    peer_id: str


class Subscribed(Event, frozen=True, kw_only=True):
    """A gateway's stream. `held`: name to version of every resource that it holds."""

    subscriber_id: str
    gateway_id: str
    instance_id: str = ""
    gateway_version: str = ""
    base_url: str = ""
    held: dict[str, str] = {}
    # None: it proved itself by a node key.
    certificate: Certified | None = None


class Acknowledged(Event, frozen=True, kw_only=True):
    """`rejected`: why the gateway kept the table it had; None if it took the update."""

    subscriber_id: str
    nonce: str
    rejected: str | None = None


class Unsubscribed(Event, frozen=True, kw_only=True):
    subscriber_id: str


class Ejected(Event, frozen=True, kw_only=True):
    """What a gateway's process leaves out by itself: "endpoint/..."."""

    gateway_id: str
    instance_id: str
    endpoints: tuple[str, ...] = ()


class OutcomesReported(Event, frozen=True, kw_only=True):
    """What a gateway's process saw of endpoints since its last report."""

    rows: tuple[EndpointOutcomes, ...]


class SamplesStored(Event, frozen=True, kw_only=True):
    """These are new in the database."""

    samples: tuple[BenchmarkSample, ...]


class RolePut(Event, frozen=True, kw_only=True):
    """An operator made or changed it; it is in the database."""

    role: Role


class RoleDropped(Event, frozen=True, kw_only=True):
    """An operator deleted it; it is gone from the database."""

    role_id: str


class AliasPut(Event, frozen=True, kw_only=True):
    """As RolePut."""

    alias: Alias


class AliasDropped(Event, frozen=True, kw_only=True):
    """As RoleDropped."""

    alias: str


class CatalogueRead(Event, frozen=True, kw_only=True):
    """What the file of roles and aliases says now; `Catalogue.check_file` has nothing against it."""

    file: str
    roles: tuple[Role, ...] = ()
    aliases: tuple[Alias, ...] = ()


class CatalogueRefused(Event, frozen=True, kw_only=True):
    """The file can't be used as it is now. fault: where in it, and why, for people."""

    fault: str


class StoreFailed(Event, frozen=True, kw_only=True):
    """The database takes no writes, for this reason; None: it does again."""

    message: str | None


class Probed(Event, frozen=True, kw_only=True):
    """Control connected to an address of a host; `failure`: why that did not come about, None if it did."""

    place: Place
    failure: str | None = None


class Checked(Event, frozen=True, kw_only=True):
    """Control asked an engine by one of its ways; `failure`: what was wrong, None if it answered as it should."""

    check: Check
    failure: Failure | None = None


class Tick(Event, frozen=True, kw_only=True):
    """`Registry.deadline` has come."""
