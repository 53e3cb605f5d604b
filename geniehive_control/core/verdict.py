"""Whether a host and a service take requests, and why not."""

from enum import Enum

import msgspec

from geniehive.rules.model import Availability, Condition, Health, Host, Reason, Service, Upstream, Way

TAKES_WORK = frozenset({Availability.UNKNOWN, Availability.AVAILABLE, Availability.BUSY})

# In words, for a host that is offline.
_AWAY = {
    Reason.STREAM_CLOSED: "the connection of its node closed",
    Reason.LEASE_EXPIRED: "its node fell silent",
    Reason.STOPPING: "its node was stopped",
}


class Life(Enum):
    """Whether a host is there."""

    ONLINE = "online"
    # Stored as online before control's own restart, and not back yet.
    PRESUMED = "presumed"
    OFFLINE = "offline"


def away(reason: Reason, since: float | None) -> Condition:
    return Condition(availability=Availability.OFFLINE, reason=reason, detail=_AWAY.get(reason, ""), since=since)


def host_condition(host: Host, life: Life, absence: Condition) -> Condition:
    """The verdict on a host. `absence` is what is said of it while it is offline."""
    if life is Life.OFFLINE:
        return absence
    condition = _spelled_out(host.condition)
    if life is Life.PRESUMED:
        return msgspec.structs.replace(
            condition, reason=Reason.PRESUMED, detail="control restarted and awaits its return"
        )
    return condition


def upstream(
    service: Service,
    host: Host,
    life: Life,
    absence: Condition,
    ways: tuple[Way, ...] | None = None,
    shut: str = "",
    found: Condition | None = None,
) -> Upstream:
    """A service as gateways see it. A presumed host counts as it was, so that its hashes rest over a restart.

    ways: those of the service that are not known to be broken; None: all. shut: if there is none left, why. found: what
    is held of the service's health beside its node's word; None: nothing.
    """
    ways = service.ways if ways is None else ways
    condition, routable = _judge(service, host, life, absence, ways, shut, found)
    return Upstream(
        service=service.service,
        runtime=service.runtime,
        routable=routable,
        condition=condition,
        ways=ways,
        slots=service.slots,
        concurrency_limit=service.concurrency_limit,
        hosted=service.hosted,
        demo=service.demo,
    )


def _judge(
    service: Service,
    host: Host,
    life: Life,
    absence: Condition,
    ways: tuple[Way, ...],
    shut: str,
    found: Condition | None,
) -> tuple[Condition, bool]:
    if life is Life.OFFLINE:
        return absence, False
    own = _spelled_out(service.condition)
    # In the order of the gates: health, accept_requests, availability.
    if own.health is Health.UNHEALTHY:
        return own, False
    if host.condition.health is Health.UNHEALTHY:
        return host.condition, False
    if found is not None:
        own = _spelled_out(found)
        if own.health is Health.UNHEALTHY:
            return own, False
    if service.accept_requests is False:
        return msgspec.structs.replace(
            own, availability=Availability.PAUSED, reason=Reason.OPERATOR, detail="accept_requests is off"
        ), False
    if host.condition.availability not in TAKES_WORK:
        return host.condition, False
    if own.availability not in TAKES_WORK:
        return own, False
    if not ways:
        why = shut or "its node offers no way to it"
        return msgspec.structs.replace(own, reason=Reason.UNREACHABLE, detail=why), False
    return own, True


def _spelled_out(condition: Condition) -> Condition:
    if condition.availability is Availability.UNKNOWN:
        return msgspec.structs.replace(condition, availability=Availability.AVAILABLE)
    return condition
