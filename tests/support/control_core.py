"""Drives a Registry by events at times of the test's choosing, and checks what must always hold."""

import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

from geniehive.rules import names
from geniehive.rules.identity import PeerKind
from geniehive.rules.model import ClientKey, Inventory, Resource, Service, Upstream
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.events import Event, Now
from geniehive_control.core.records import Origin, Stored, StoredCertificate, StoredHost
from geniehive_control.core.registry import COMPILE_EVERY, Pace, Registry
from geniehive_control.core.table import Table, version
from geniehive_control.core.trust import Certified
from geniehive_control.core.verdict import Life
from tests.support.cluster import inventory

E = TypeVar("E", bound=fx.Effect)

WALL = 1_700_000_000.0

_serials = itertools.count(1)


class Driver:
    def __init__(
        self,
        hosts: Iterable[StoredHost] = (),
        configured: Iterable[ClientKey] = (),
        lease_ttl: float = 2.5,
        restart_grace: float = 30.0,
        *,
        certificates: Iterable[StoredCertificate] = (),
        tls: bool = False,
        machine_id: str | None = None,
    ) -> None:
        self.time = 100.0
        stored = Stored(cluster_id="c1", hosts=tuple(hosts), certificates=tuple(certificates))
        pace = Pace(lease_ttl=lease_ttl, restart_grace=restart_grace)
        self.registry = Registry(stored, self.now, pace, configured, tls=tls, machine_id=machine_id)
        self.effects: list[fx.Effect] = []
        self._numbers = itertools.count(1)

    @property
    def now(self) -> Now:
        return Now(self.time, WALL + self.time)

    def feed(self, event: Event) -> list[fx.Effect]:
        effects = self.registry.handle(event, self.now)
        self.effects += effects
        check(self.registry)
        return effects

    def wait(self, seconds: float) -> list[fx.Effect]:
        """Lets time pass, with every Tick that comes due."""
        end = self.time + seconds
        effects = []
        while self.registry.deadline <= end:
            self.time = max(self.time, self.registry.deadline)
            effects += self.feed(e.Tick())
        self.time = end
        return effects

    # Nodes.

    def open(self, host_id: str, **hello: Any) -> tuple[str, list[fx.Effect]]:
        session = f"s{next(self._numbers)}"
        return session, self.feed(e.SessionOpened(session_id=session, host_id=host_id, **hello))

    def enrol(
        self, peer_id: str, machine_id: str | None = None, kind: PeerKind = PeerKind.NODE, life: float = 1000.0
    ) -> Certified:
        """A machine joins, under the id that it gets. Its certificate."""
        given = self.registry.fence.enrol(peer_id, machine_id, self.now)
        certificate = StoredCertificate(
            serial=f"{next(_serials):x}",
            kind=kind,
            peer_id=given,
            machine_id=machine_id,
            issued=self.now.wall,
            expires=self.now.wall + life,
            origin=Origin.TOKEN,
        )
        self.feed(e.Enrolled(token_id="t", certificates=(certificate,)))
        return shown(certificate)

    def certify(self, stream_id: str, life: float = 1000.0) -> Certified | None:
        """Who has this stream asks for a certificate."""
        grant = self.registry.grant(stream_id, self.now)
        if grant is None:
            return None
        certificate = StoredCertificate(
            serial=f"{next(_serials):x}",
            kind=grant.kind,
            peer_id=grant.peer_id,
            machine_id=grant.machine_id,
            issued=self.now.wall,
            expires=self.now.wall + life,
            origin=grant.origin,
        )
        self.feed(e.CertificateIssued(certificate=certificate))
        return shown(certificate)

    def offer(self, session: str, offered: Inventory) -> list[fx.Effect]:
        return self.feed(e.InventorySent(session_id=session, inventory=offered))

    def join(self, host_id: str, *services: Service, **hello: Any) -> str:
        """A host with its first inventory, stored."""
        session, _ = self.open(host_id, **hello)
        self.offer(session, inventory(host_id, services))
        self.store()
        return session

    def beat(self, session: str) -> None:
        self.feed(e.Heartbeat(session_id=session))

    def close(self, session: str) -> list[fx.Effect]:
        return self.feed(e.SessionClosed(session_id=session))

    def store(self) -> list[fx.Effect]:
        """The database takes every host."""
        effects = []
        for host in list(self.registry.hosts()):
            kept = self.registry.to_store(host.host_id)
            assert kept is not None
            effects += self.feed(e.HostStored(host_id=host.host_id, change=kept[1]))
        return effects

    def upstream(self, service: str) -> Upstream:
        resource = self.registry.table.get(names.upstream_resource(service))
        assert resource is not None
        assert isinstance(resource.content, Upstream)
        return resource.content

    def routable(self, service: str) -> bool:
        return self.upstream(service).routable


class Mirror:
    """A gateway that applies what it is sent."""

    def __init__(self, driver: Driver, held: dict[str, Resource] | None = None) -> None:
        self.driver = driver
        self.table = dict(held or {})
        self.subscriber_id = f"g{next(driver._numbers)}"
        self.updates: list[fx.Update] = []
        self._seen = len(driver.effects)
        self._answered = 0
        versions = {name: resource.version for name, resource in self.table.items()}
        driver.feed(e.Subscribed(subscriber_id=self.subscriber_id, gateway_id="gw", held=versions))
        self.collect()

    def collect(self) -> list[fx.Update]:
        """Updates that came since."""
        new = [
            effect
            for effect in self.driver.effects[self._seen :]
            if isinstance(effect, fx.Update) and effect.subscriber_id == self.subscriber_id
        ]
        self._seen = len(self.driver.effects)
        self.updates += new
        assert len(self.updates) - self._answered <= 1, "two updates in flight"
        return new

    def ack(self, rejected: str | None = None) -> None:
        """Applies and answers the update in flight."""
        self.collect()
        update = self.updates[self._answered]
        self._answered += 1
        if rejected is None:
            self.table |= {resource.name: resource for resource in update.changed}
            for name in update.removed:
                self.table.pop(name, None)
        self.driver.feed(e.Acknowledged(subscriber_id=self.subscriber_id, nonce=update.nonce, rejected=rejected))
        self.collect()

    def catch_up(self) -> None:
        self.driver.wait(COMPILE_EVERY)
        self.collect()
        while self._answered < len(self.updates):
            self.ack()


def shown(certificate: StoredCertificate) -> Certified:
    return Certified(certificate.kind, certificate.peer_id, certificate.serial, certificate.expires)


def check(registry: Registry) -> None:
    """What must hold after every event."""
    hosts = list(registry.hosts())
    for host in hosts:
        assert host.info is not None
        assert host.info.host_id == host.host_id
        if host.session is not None:
            assert registry._sessions.live[host.session.session_id] is host.session
        assert host.life is not Life.ONLINE or host.session is not None
        assert host.session is None or host.certified == (host.session.certificate is not None)
        assert host.life is not Life.PRESUMED or registry.grace_ends is not None
    assert len(registry._sessions.live) == sum(host.session is not None for host in registry._hosts.values())
    # Looked at without compiling what may wait.
    table = registry._table
    passed_over = ("key/", "route/") if table.stale else ("key/",)
    expected = {name: content for name, content in compiled(registry).items() if not name.startswith(passed_over)}
    contents = {name: table.content(name) for name in table}
    assert {name: content for name, content in contents.items() if not name.startswith(passed_over)} == expected
    assert all(table.version(name) == version(content) for name, content in contents.items() if content is not None)


def compiled(registry: Registry) -> dict[str, object]:
    """The table compiled anew, all at once."""
    held = registry._table
    fresh = Table(held.routing)
    for host in registry.hosts():
        assert host.info is not None
        fresh.put_host(host.info)
    services = list(registry.services())
    for host, service in services:
        fresh.put_service(service)
        fresh.put_upstream(host.upstream(service))
    fresh.set_profiles(registry.catalogue.roles, registry.catalogue.aliases)
    for endpoint, speed in held.merits._speeds.items():
        fresh.put_speed(endpoint, speed)
    for endpoint, seconds in held.merits._latencies.items():
        fresh.put_latency(endpoint, seconds)
    for (service_name, asset_id), samples in held.merits._samples.items():
        fresh.put_benchmarks(service_name, asset_id, samples)
    for model, tokens in held.naming._expected.items():
        fresh.put_expected(model, tokens)
    fresh.compile()
    table: dict[str, object] = {name: fresh.content(name) for name in fresh}
    for host in registry.hosts():
        if host.relay is not None:
            table[names.relay_resource(host.host_id)] = host.relay
    return table


def kinds(effects: Iterable[fx.Effect]) -> list[type[fx.Effect]]:
    return [type(effect) for effect in effects]


def only(effects: Iterable[fx.Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def restarted(driver: Driver, restart_grace: float = 30.0) -> Driver:
    """Another control on what this one stored."""
    kept = [driver.registry.to_store(host.host_id) for host in driver.registry.hosts()]
    certificates = [c for held in driver.registry.trust._peers.values() for c in held.values()]
    hosts = [item[0] for item in kept if item is not None]
    return Driver(hosts, restart_grace=restart_grace, certificates=certificates, tls=driver.registry._members.tls)
