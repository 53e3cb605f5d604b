"""What watches tell, and how they get over a break. No I/O: both clients feed it messages and breaks.

A watch of objects tells Changed and Removed, and, once everything that there was has been told, Synced. After a break
it tells Resync, then what changed or vanished meanwhile, then Synced again. What a consumer has seen up to a Synced is
the whole truth of that moment; between Resync and Synced it is old.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import grpc

from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.v1.benchmark_pb2 import BenchmarkSample
from geniehive.v1.failure_pb2 import FailureReason
from geniehive.v1.registry_service_pb2 import (
    ClusterHealth,
    HostView,
    ObjectKind,
    ServiceView,
    WatchLoadResponse,
    WatchRegistryResponse,
)
from geniehive.v1.role_pb2 import Alias, Role

Watched = HostView | ServiceView | Role | Alias | BenchmarkSample | ClusterHealth
Kind: TypeAlias = ObjectKind.ValueType
# ClusterHealth has no name of its own.
CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Changed:
    """An object as it is now; new to the consumer, or different from what it saw last."""

    kind: Kind
    name: str
    object: Watched


@dataclass(frozen=True, slots=True)
class Removed:
    """An object is gone. `last` is how it was seen last."""

    kind: Kind
    name: str
    last: Watched


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything up to now has been told. `first`: for the first time, and not after a break."""

    first: bool


@dataclass(frozen=True, slots=True)
class Resync:
    """The stream broke and is opened again, as often as it takes. Told once per break, with its cause."""

    cause: Refused


Event = Changed | Removed | Synced | Resync

Message = TypeVar("Message", contravariant=True)
Told = TypeVar("Told", covariant=True)


class View(Protocol[Message, Told]):
    def message(self, message: Message) -> Iterable[Told]:
        """What a message of the stream tells."""

    def broken(self, cause: Refused) -> Iterable[Told]:
        """What the end of the stream tells. It will be opened anew."""


class RegistryView:
    """What a consumer has been told of the registry, stream after stream."""

    def __init__(self) -> None:
        self._held: dict[tuple[Kind, str], Watched] = {}
        # What this stream has sent before its first `synced`; None after it.
        self._seen: set[tuple[Kind, str]] | None = set()
        self._synced_ever = False
        self._telling_break = False

    def message(self, message: WatchRegistryResponse) -> list[Event]:
        match message.WhichOneof("event"):
            case "changed":
                return self._changed(message.changed)
            case "removed":
                last = self._held.pop((message.removed.kind, message.removed.name), None)
                return [] if last is None else [Removed(message.removed.kind, message.removed.name, last)]
            case "synced":
                return self._synced()
        return []  # from a newer control

    def _changed(self, message: WatchRegistryResponse.Object) -> list[Event]:
        found = _read(message)
        if found is None:
            return []
        kind, name, now = found
        if self._seen is not None:
            self._seen.add((kind, name))
        if self._held.get((kind, name)) == now:
            return []
        self._held[kind, name] = now
        return [Changed(kind, name, now)]

    def _synced(self) -> list[Event]:
        if self._seen is None:
            return []  # a sign of life
        gone = [key for key in self._held if key not in self._seen]
        events: list[Event] = [Removed(*key, self._held.pop(key)) for key in gone]
        events.append(Synced(first=not self._synced_ever))
        self._seen, self._synced_ever, self._telling_break = None, True, False
        return events

    def broken(self, cause: Refused) -> list[Event]:
        self._seen = set()
        if self._telling_break:
            return []
        self._telling_break = True
        return [Resync(cause)]


class LoadView:
    """Each message is whole, so that a break needs no telling."""

    def message(self, message: WatchLoadResponse) -> list[WatchLoadResponse]:
        return [message]

    def broken(self, cause: Refused) -> list[WatchLoadResponse]:
        return []


def _read(message: WatchRegistryResponse.Object) -> tuple[Kind, str, Watched] | None:
    match message.WhichOneof("object"):
        case "host":
            return ObjectKind.OBJECT_KIND_HOST, message.host.host.host_id, message.host
        case "service":
            return ObjectKind.OBJECT_KIND_SERVICE, message.service.service.service, message.service
        case "role":
            return ObjectKind.OBJECT_KIND_ROLE, message.role.role_id, message.role
        case "alias":
            return ObjectKind.OBJECT_KIND_ALIAS, message.alias.alias, message.alias
        case "benchmark":
            return ObjectKind.OBJECT_KIND_BENCHMARK, message.benchmark.sample_id, message.benchmark
        case "cluster_health":
            return ObjectKind.OBJECT_KIND_CLUSTER_HEALTH, CLUSTER, message.cluster_health
    return None


_FOR_GOOD = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_SOON = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED})


class Reopening:
    """When to open a broken stream again."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()

    def worked(self) -> None:
        self._backoff.reset()

    def delay(self, cause: Refused) -> float | None:
        """Seconds until then. None: never, the cause will not go away."""
        if cause.code in _FOR_GOOD:
            return None
        if cause.code not in _SOON:
            self._backoff.most()
        return max(self._backoff.next(), cause.retry_after or 0.0)


def silence(seconds: float) -> Refused:
    return _break(f"control said nothing for {seconds:g} s")


def ended() -> Refused:
    return _break("control ended the stream")


def _break(message: str) -> Refused:
    return Refused(FailureReason.FAILURE_REASON_UNSPECIFIED, message, code=grpc.StatusCode.UNAVAILABLE)
