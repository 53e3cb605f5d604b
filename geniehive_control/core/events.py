"""What can happen. Each is handed to `Registry.handle` with the time at which it did."""

from typing import NamedTuple

import msgspec

from geniehive.rules.model import ClientKey, Inventory, MachineLoad, ServiceLoad


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


class InventorySent(Event, frozen=True, kw_only=True):
    session_id: str
    inventory: Inventory


class Heartbeat(Event, frozen=True, kw_only=True):
    """`sent`: the node's clock, seconds since the epoch."""

    session_id: str
    sent: float | None = None


class LoadSent(Event, frozen=True, kw_only=True):
    session_id: str
    machine: MachineLoad | None = None
    services: tuple[ServiceLoad, ...] = ()


class SessionClosed(Event, frozen=True, kw_only=True):
    """The stream ended, from whichever side."""

    session_id: str


class HostStored(Event, frozen=True, kw_only=True):
    """What `Registry.to_store` gave, with this `change`, is in the database."""

    host_id: str
    change: int


class HostForgotten(Event, frozen=True, kw_only=True):
    """An operator forgot it; it is gone from the database."""

    host_id: str


class KeyCreated(Event, frozen=True, kw_only=True):
    """It is in the database."""

    key: ClientKey
    created: float


class KeyRevoked(Event, frozen=True, kw_only=True):
    """It is so in the database."""

    key_id: str


class Subscribed(Event, frozen=True, kw_only=True):
    """A gateway's stream. `held`: name to version of every resource that it holds."""

    subscriber_id: str
    gateway_id: str
    instance_id: str = ""
    gateway_version: str = ""
    base_url: str = ""
    held: dict[str, str] = {}


class Acknowledged(Event, frozen=True, kw_only=True):
    """`rejected`: why the gateway kept the table it had; None if it took the update."""

    subscriber_id: str
    nonce: str
    rejected: str | None = None


class Unsubscribed(Event, frozen=True, kw_only=True):
    subscriber_id: str


class StoreFailed(Event, frozen=True, kw_only=True):
    """The database takes no writes, for this reason; None: it does again."""

    message: str | None


class Tick(Event, frozen=True, kw_only=True):
    """`Registry.deadline` has come."""
