"""What is kept in the database. Times are seconds since the epoch."""

from enum import Enum

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Alias, BenchmarkSample, ClientKey, Condition, Host, Role, Service, Value
from geniehive_control.core.figures import EndpointOutcomes


class StoredHost(Value, frozen=True, kw_only=True):
    """A host with what it offered last. `online`: it was, when this was written; a restarted control presumes it is.

    Relays are not kept: their tokens are secrets, and a node makes a new one whenever it starts.
    """

    host: Host
    services: tuple[Service, ...] = ()
    machine_id: str | None = None
    agent_version: str = ""
    joined: float = 0.0
    last_seen: float = 0.0
    # Whether it proved itself by a certificate, and not by a node key, when it was here last.
    certified: bool = False
    online: bool = False
    # Why and since when it is offline; None while it is online.
    absence: Condition | None = None

    @property
    def host_id(self) -> str:
        return self.host.host_id


class StoredKey(Value, frozen=True, kw_only=True):
    """A client key that was created, revoked ones too."""

    key: ClientKey
    created: float
    revoked: float | None = None


class Origin(Enum):
    """What a certificate was given for. The values are the words that are stored."""

    # A join token, or a certificate that goes back to one.
    TOKEN = "token"
    # The node key of control's own machine.
    KEY = "key"
    # The certificate of another machine, of which this one is a copy.
    CLONE = "clone"


class StoredCertificate(Value, frozen=True, kw_only=True):
    """A certificate that was issued, without its key. serial: hexadecimal, lower case. peer_id: as in identity.Peer."""

    serial: str
    kind: PeerKind
    peer_id: str
    machine_id: str | None = None
    issued: float
    expires: float
    revoked: float | None = None
    origin: Origin


class StoredToken(Value, frozen=True, kw_only=True):
    """A join token that was created. sha256: of its secret. kinds: whom it lets join."""

    token_id: str
    sha256: bytes
    kinds: tuple[PeerKind, ...]
    uses_left: int
    created: float
    expires: float
    revoked: float | None = None


class Stored(Value, frozen=True, kw_only=True):
    """Everything, as read at start."""

    cluster_id: str
    hosts: tuple[StoredHost, ...] = ()
    keys: tuple[StoredKey, ...] = ()
    certificates: tuple[StoredCertificate, ...] = ()
    tokens: tuple[StoredToken, ...] = ()
    # The newest of each service, model and workload.
    samples: tuple[BenchmarkSample, ...] = ()
    # Those that operators made.
    roles: tuple[Role, ...] = ()
    aliases: tuple[Alias, ...] = ()
    # What gateways saw of endpoints in the last day of which anything is known, summed.
    learned: tuple[EndpointOutcomes, ...] = ()
    # By process of a gateway, the last report that is in the sums of usage.
    reported: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)
