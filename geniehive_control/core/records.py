"""What is kept in the database. Times are seconds since the epoch."""

from geniehive.rules.model import ClientKey, Condition, Host, Service, Value


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


class Stored(Value, frozen=True, kw_only=True):
    """Everything, as read at start."""

    cluster_id: str
    hosts: tuple[StoredHost, ...] = ()
    keys: tuple[StoredKey, ...] = ()
