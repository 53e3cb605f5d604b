"""The whole state of control behind one door: `handle(event, now) -> effects`.

Each event goes to whose it is: hosts come and go with their sessions, what they offer is listed in the table, what
changes in the table goes to the gateways. Here is what concerns more than one of them, when routes are compiled, and
when the next Tick is due (`deadline`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import BenchmarkSample, ClientKey, Service, ServiceLoad
from geniehive_control.core import events as e
from geniehive_control.core.benchmarks import Benchmarks
from geniehive_control.core.callers import Callers
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.effects import Changed, Effect, Note, StoreSeen
from geniehive_control.core.events import Event, Now
from geniehive_control.core.figures import Figures
from geniehive_control.core.gateways import Gateways
from geniehive_control.core.grace import Grace
from geniehive_control.core.health import HealthBook
from geniehive_control.core.hosts import HostState
from geniehive_control.core.learning import Learning
from geniehive_control.core.listing import Listing
from geniehive_control.core.members import Members
from geniehive_control.core.peers import Peers
from geniehive_control.core.profiles import Profiles
from geniehive_control.core.records import Stored, StoredHost
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.sessions import Sessions
from geniehive_control.core.subscriber import Subscriber
from geniehive_control.core.table import Table
from geniehive_control.core.trust import Grant
from geniehive_control.core.verdict import Life

# How often routes are compiled at most: of a burst of changes the first is told at once, the others together.
COMPILE_EVERY = 0.02
# And how long it waits at least for each offer that it went through, some times what one costs: names that a thousand
# hosts have leave time for everything else while these hosts come and go.
COMPILE_SPARE = 50e-6
# How precisely `last_seen` is stored while a host is online.
SEEN_EVERY = 60.0
LONGEST_SKEW = 5.0


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """In seconds."""

    lease_ttl: float = 2.5
    restart_grace: float = 30.0
    probe_interval: float = 10.0


class Registry:
    """tls: whether the cluster has certificates, so that everybody must be told whom to believe.

    machine_id: of control's own machine, as nodes say theirs; None: whoever came without a certificate counts as of it.
    """

    def __init__(
        self,
        stored: Stored,
        now: Now,
        pace: Pace,
        configured_keys: Iterable[ClientKey] = (),
        *,
        tls: bool = False,
        routing: RoutingDefaults | None = None,
        machine_id: str | None = None,
    ) -> None:
        self.cluster_id = stored.cluster_id
        self.started = now
        self._table = Table(routing)
        self._members = Members(stored, now, tls=tls)
        self.tokens = self._members.tokens
        self.trust = self._members.trust
        self.benchmarks = Benchmarks(stored.samples)
        self._profiles = Profiles(stored, self._table)
        self.catalogue = self._profiles.catalogue
        # The database's words, while it takes no writes.
        self.store_failure: str | None = None
        self._hosts: dict[str, HostState] = {}
        self.health = HealthBook(pace.probe_interval, tls=tls)
        self._listing = Listing(self._hosts, self._table, self.health, self._changed, machine_id=machine_id)
        self.reach = self._listing.reach
        grace = Grace(now.mono + pace.restart_grace, self._has_registered)
        self._gateways = Gateways(self._table, lambda: self.table, self._members, grace)
        self._sessions = Sessions(self._hosts, self._listing, self._members, self._gateways, lease_ttl=pace.lease_ttl)
        self.fence = self._sessions.fence
        self._peers = Peers(self._hosts, self._members, self._sessions, self._gateways)
        # Names of resources that became other than they were, in the event at hand.
        self._names: set[str] = set()
        self._compile_due = now.mono
        self._seen_due = now.mono + SEEN_EVERY
        for kept in stored.hosts:
            host = self._hosts[kept.host_id] = HostState.restore(kept, now, self.health)
            self._listing.restore(host)
        self._callers = Callers(configured_keys, stored.keys, self._table, self._changed, now)
        self.keys = self._callers.keys
        self.figures = Figures(self.load_of)
        self._learning = Learning(self.figures, self._table, self._service_of, self._changed)
        self._learning.restore(stored.learned, self.benchmarks, now)
        self._benchmarked(self.benchmarks)
        self._table.compile()
        self._handlers: dict[type[Event], Callable[[Any, Now], list[Effect]]] = {
            e.SessionOpened: self._sessions.opened,
            e.InventorySent: self._sessions.offered,
            e.SessionClosed: self._sessions.closed,
            e.HostStored: self._sessions.stored,
            e.HostForgotten: self._host_forgotten,
            e.KeyCreated: self._callers.key_created,
            e.KeyRevoked: self._callers.key_revoked,
            e.TokenCreated: self._members.token_created,
            e.TokenRevoked: self._members.token_revoked,
            e.Enrolled: self._peers.enrolled,
            e.CertificateIssued: self._members.certificate_issued,
            e.PeerRevoked: self._peers.revoked,
            e.Probed: self._listing.probed,
            e.Checked: self._listing.checked,
            e.OutcomesReported: self._outcomes_reported,
            e.Subscribed: self._gateways.subscribed,
            e.Acknowledged: self._gateways.acknowledged,
            e.Unsubscribed: self._gateways.unsubscribed,
            e.Ejected: self._gateways.ejected,
            e.SamplesStored: self._samples_stored,
            e.RolePut: self._profiles.role_put,
            e.RoleDropped: self._profiles.role_dropped,
            e.AliasPut: self._profiles.alias_put,
            e.AliasDropped: self._profiles.alias_dropped,
            e.CatalogueRead: self._profiles.catalogue_read,
            e.CatalogueRefused: self._profiles.catalogue_refused,
            e.StoreFailed: self._store_failed,
            e.Tick: self._tick,
        }

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """The only way in which anything changes."""
        if type(event) is e.Heartbeat:
            self._sessions.renew(event.session_id, now, event.sent)
            return []
        if type(event) is e.LoadSent:
            if (host := self._sessions.renew(event.session_id, now)) is not None:
                host.take_load(event, now)
            return []
        effects = self._handlers[type(event)](event, now)
        # Without a gateway nobody is to be told; who asks has them compiled (`table`).
        if self._table.stale and self._gateways.streams and self._compile_due <= now.mono:
            self._names |= self._table.compile()
            self._compile_due = now.mono + max(COMPILE_EVERY, COMPILE_SPARE * self._table.compiled)
        if self._names:
            names, self._names = self._names, set()
            effects += self._gateways.tell(names)
        return effects

    # What others may ask.

    @property
    def table(self) -> Table:
        """The table with every route as it is now."""
        if self._table.stale:
            # Gateways are told at the next Tick, which is due already or very soon.
            self._names |= self._table.compile()
        return self._table

    @property
    def deadline(self) -> float:
        """When a Tick is due, on the clock that only grows."""
        waits = self._gateways.streams and (self._table.stale or self._names)
        compile_due = self._compile_due if waits else None
        own = (self._seen_due, self.grace_ends, compile_due)
        dues = (*own, self._sessions.due, self._callers.due, self._members.due, self._listing.due)
        return min(due for due in dues if due is not None)

    @property
    def grace_ends(self) -> float | None:
        """Until when stored hosts are presumed to be there, on the clock that only grows. None: no longer."""
        return None if self._gateways.grace is None else self._gateways.grace.ends

    @property
    def subscribers(self) -> Iterable[Subscriber]:
        return self._gateways.streams.values()

    def hosts(self) -> Iterator[HostState]:
        """Those that have registered, now or earlier, by name."""
        for host_id in sorted(self._hosts):
            if (host := self.host(host_id)) is not None:
                yield host

    def host(self, host_id: str) -> HostState | None:
        host = self._hosts.get(host_id)
        return None if host is None or host.info is None else host

    def services(self) -> Iterator[tuple[HostState, Service]]:
        """By name."""
        found = ((host, service) for host in self.hosts() for service in host.services.values())
        return iter(sorted(found, key=lambda pair: pair[1].service))

    def service(self, name: str) -> tuple[HostState, Service] | None:
        host = self.host(name.partition("/")[0])
        service = None if host is None else host.services.get(name)
        return None if host is None or service is None else (host, service)

    def load_of(self, name: str) -> ServiceLoad | None:
        """Of a service, as last seen."""
        found = self.service(name)
        return None if found is None else found[0].loads.get(name)

    def to_store(self, host_id: str) -> tuple[StoredHost, int] | None:
        """What is to be kept of a host, and the change to name in HostStored. None: it is gone."""
        host = self.host(host_id)
        return None if host is None else (host.to_store(), host.change)

    def grant(self, stream_id: str, now: Now) -> Grant | None:
        """For whom a certificate is that is asked for on this stream. None: the stream has ended."""
        return self._peers.grant(stream_id)

    # What others among the rules ask, and tell.

    def _has_registered(self, host_id: str) -> bool:
        host = self._hosts.get(host_id)
        return host is not None and host.registered

    def _service_of(self, name: str) -> Service | None:
        found = self.service(name)
        return None if found is None else found[1]

    def _changed(self, names: set[str]) -> None:
        self._names |= names

    # What concerns more than one of them.

    def _outcomes_reported(self, event: e.OutcomesReported, now: Now) -> list[Effect]:
        return self._learning.reported(event, now) + self._listing.reported(event, now)

    def _host_forgotten(self, event: e.HostForgotten, now: Now) -> list[Effect]:
        left, forgotten = f"host {event.host_id!r} has left", f"an operator made control forget host {event.host_id!r}"
        refusal = Refusal(Why.CREDENTIAL_REVOKED, left if event.left else forgotten)
        host = self._hosts.pop(event.host_id, None)
        effects: list[Effect] = []
        if host is not None and host.session is not None:
            effects += self._sessions.drop(host.session, refusal)
        effects += self._peers.revoke(PeerKind.NODE, event.host_id, refusal, now)
        if host is None:
            return effects
        self._listing.rest(host, now)
        self._gateways.forget(host.host_id)
        self._listing.drop(host)
        self._learning.forget(host.host_id)
        gone = self.benchmarks.forget_host(host.host_id)
        changed = Changed(
            hosts=frozenset({host.host_id}), services=frozenset(host.services), benchmarks=gone, cluster=True
        )
        return [*effects, changed]

    def _samples_stored(self, event: e.SamplesStored, now: Now) -> list[Effect]:
        told: frozenset[str] = frozenset()
        for sample in event.samples:
            told |= self.benchmarks.take(sample)
        self._benchmarked(event.samples)
        effects: list[Effect] = [Changed(benchmarks=told)] if told else []
        return effects + self._learning.benchmarked((s for s in event.samples if s.sample_id in told), now)

    def _benchmarked(self, samples: Iterable[BenchmarkSample]) -> None:
        for service, asset_id in {(sample.service, sample.asset_id) for sample in samples}:
            self._table.put_benchmarks(service, asset_id, self.benchmarks.newest(service, asset_id))

    def _store_failed(self, event: e.StoreFailed, now: Now) -> list[Effect]:
        if event.message == self.store_failure:
            return []
        was, self.store_failure = self.store_failure, event.message
        effects: list[Effect] = [Changed(cluster=True)]
        if event.message is None:
            effects.append(Note(text="the database takes writes again"))
        elif was is None:
            effects.append(Note(text=f"{event.message}; serving goes on, writes are tried again", grave=True))
        return effects

    # Timers.

    def _tick(self, event: e.Tick, now: Now) -> list[Effect]:
        effects = self._sessions.tick(now)
        if self.grace_ends is not None and self.grace_ends <= now.mono:
            effects += self._end_grace(now)
        if self._callers.due is not None and self._callers.due <= now.mono:
            effects += self._callers.tick(now)
        if self._listing.due is not None and self._listing.due <= now.mono:
            effects += self._listing.tick(now)
        if self._members.due is not None and self._members.due <= now.mono:
            effects += self._members.tell(now)
        if self._seen_due <= now.mono:
            self._seen_due = now.mono + SEEN_EVERY
            effects += self._learning.settle(now)
            seen = {host.host_id: host.last_seen for host in self._hosts.values() if host.life is Life.ONLINE}
            effects += [StoreSeen(seen=seen)] if seen else []
        return effects

    def _end_grace(self, now: Now) -> list[Effect]:
        self._gateways.grace = None
        gone = self._sessions.presume_no_more(now)
        return [Changed(cluster=True), *gone, *self._gateways.tell_what_was_withheld()]
