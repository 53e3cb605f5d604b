"""Whether hosts can be reached at the addresses that their nodes name, as control itself finds by connecting.

A node that can reach control need not be reachable: a firewall, another network. An address is broken after two failed
connections, and good again after one that succeeds. Addresses of loopback are their own machine's business alone.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from geniehive.rules.model import Relay, Service, Way

# Seconds until an address is tried again: after it was good, after its first failure, and while it is broken.
GOOD, DOUBTFUL, BROKEN = 15.0, 1.0, 5.0
# Addresses of one host that are tried: what is more counts as good, and keeps nobody's turn from coming.
MOST_OF_A_HOST = 64


class Place(NamedTuple):
    """Where to connect."""

    host: str
    port: int


def place(url: str) -> Place | None:
    """None for what can't be tried: loopback, and what is no URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not host or host == "localhost":
        return None
    try:
        if ipaddress.ip_address(host).is_loopback:
            return None
    except ValueError:
        pass
    return Place(host, port)


def places(services: Iterable[Service], relay: Relay | None) -> frozenset[Place]:
    """Everywhere that gateways on other machines may be sent for this host."""
    urls = [way.direct_url for s in services if not s.hosted for way in s.ways if not way.same_host_only]
    urls += relay.base_urls if relay is not None else ()
    return frozenset(found for url in urls if url is not None and (found := place(url)) is not None)


def open_ways(service: Service, relay: Relay | None, broken: Mapping[Place, str]) -> tuple[tuple[Way, ...], str]:
    """The ways of a service that are not known to be broken, and, if none is left, why and what to do about it."""
    if not broken:
        return service.ways, ""
    kept = []
    shut: dict[Place, str] = {}
    for way in service.ways:
        if way.direct_url is not None:
            urls: tuple[str, ...] = () if way.same_host_only else (way.direct_url,)
        else:
            urls = relay.base_urls if relay is not None else ()
        found = {p: broken[p] for url in urls if (p := place(url)) is not None and p in broken}
        if urls and len(found) == len(urls):
            shut |= found
        else:
            kept.append(way)
    if kept or not shut:
        return tuple(kept), ""
    told = "; ".join(f"{_name(p)}: {why}" for p, why in sorted(shut.items()))
    ports = ", ".join(str(port) for port in sorted({p.port for p in shut}))
    return (), (
        f"control cannot connect to it ({told}). Open TCP port {ports} in that machine's firewall, or give its node "
        "the address that others reach: --advertise"
    )


def _name(where: Place) -> str:
    return f"[{where.host}]:{where.port}" if ":" in where.host else f"{where.host}:{where.port}"


class _State:
    __slots__ = ("due", "failures", "reason", "trying")

    def __init__(self, now: float) -> None:
        self.due = now
        self.failures = 0
        self.reason = ""
        self.trying = False


class Reach:
    """What is known of every host's addresses. Times are of the clock that only grows."""

    def __init__(self) -> None:
        self._places: dict[str, frozenset[Place]] = {}
        self._states: dict[Place, _State] = {}

    def want(self, host_id: str, wanted: frozenset[Place], now: float) -> None:
        """These are the addresses of the host now; none if it is away."""
        before = self._places.get(host_id, frozenset())
        if len(wanted) > MOST_OF_A_HOST:
            # The same ones again, as long as they are wanted.
            wanted = frozenset(sorted(wanted, key=lambda where: (where not in before, where))[:MOST_OF_A_HOST])
        if wanted:
            self._places[host_id] = wanted
        else:
            self._places.pop(host_id, None)
        for where in wanted:
            if where not in self._states:
                self._states[where] = _State(now)
        for where in before - wanted:
            if not any(where in others for others in self._places.values()):
                del self._states[where]

    def next_due(self) -> float | None:
        """When an address is to be tried next; None if there is none."""
        return min((state.due for state in self._states.values() if not state.trying), default=None)

    def take_due(self, now: float, most: int) -> list[Place]:
        """Addresses to be tried now, who waits longest first. Each is not given again before its result is told."""
        due = [where for where, state in self._states.items() if not state.trying and state.due <= now]
        due = sorted(due, key=lambda where: self._states[where].due)[:most]
        for where in due:
            self._states[where].trying = True
        return due

    def tell(self, where: Place, failure: str | None, now: float) -> set[str]:
        """What became of a connection. Gives the hosts of which something else is known now."""
        state = self._states.get(where)
        if state is None:
            return set()
        was = self._is_broken(state), state.reason
        state.trying = False
        state.failures = 0 if failure is None else state.failures + 1
        state.reason = failure or ""
        state.due = now + (GOOD if failure is None else DOUBTFUL if state.failures == 1 else BROKEN)
        if was == (self._is_broken(state), state.reason) or not (was[0] or self._is_broken(state)):
            return set()
        return {host_id for host_id, wanted in self._places.items() if where in wanted}

    def broken(self, host_id: str) -> dict[Place, str]:
        """Its addresses that take no connections, and why."""
        wanted = self._places.get(host_id, ())
        return {p: self._states[p].reason for p in wanted if self._is_broken(self._states[p])}

    @staticmethod
    def _is_broken(state: _State) -> bool:
        return state.failures >= 2
