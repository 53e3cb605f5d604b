"""The whole state of control behind one door: `handle(event, now) -> effects`.

Hosts come and go with their sessions; what they offer is compiled into the table; what changes in the table goes to the
subscribers. Timers are here too: `deadline` says when the next Tick is due.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import BenchmarkSample, ClientKey, Reason, Service, ServiceLoad
from geniehive_control.core import events as e
from geniehive_control.core import inventory, reach
from geniehive_control.core.benchmarks import Benchmarks
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.effects import (
    AnswerInventory,
    Changed,
    Effect,
    EndCallers,
    EndSession,
    Note,
    Refused,
    StoreHost,
    StoreSeen,
    Welcome,
)
from geniehive_control.core.events import Event, Now
from geniehive_control.core.fencing import Fence
from geniehive_control.core.figures import Figures
from geniehive_control.core.gateways import Gateways
from geniehive_control.core.grace import Grace
from geniehive_control.core.health import HealthBook
from geniehive_control.core.hosts import HostState, Session
from geniehive_control.core.keys import Keys
from geniehive_control.core.learning import Learning
from geniehive_control.core.members import Members
from geniehive_control.core.profiles import Profiles
from geniehive_control.core.reach import Reach
from geniehive_control.core.records import Stored, StoredHost
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.subscriber import Subscriber
from geniehive_control.core.table import Table
from geniehive_control.core.trust import Grant
from geniehive_control.core.verdict import Life

# Leases that end within this of one another are swept together: a thousand hosts don't need a timer each.
SWEEP_EVERY = 0.05
# The lease of a session that has only just begun. Nobody counts on its host yet; and of thousands that come at once the
# first offers are still being read when a usual lease ends, and who is sent away comes again with all of it.
FIRST_LEASE = 10.0
# A sweep that is later than this was held up, and so was the reading of what nodes sent.
HELD_UP = 0.25
# How often routes are compiled at most: of a burst of changes the first is told at once, the others together.
COMPILE_EVERY = 0.02
# And how long it waits at least for each offer that it went through, some times what one costs: names that a thousand
# hosts have leave time for everything else while these hosts come and go.
COMPILE_SPARE = 50e-6
# How precisely `last_seen` is stored while a host is online, and how often expiry is compared with the wall clock.
SEEN_EVERY = 60.0
LONGEST_SKEW = 5.0
# Daemons that are remembered as told to stop.
_MOST_TOLD = 1000


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
        self._machine_id = machine_id
        self._table = Table(routing)
        self.keys = Keys(configured_keys, stored.keys)
        self._members = Members(stored, now, tls=tls)
        self.tokens = self._members.tokens
        self.trust = self._members.trust
        self.reach = Reach()
        self.health = HealthBook(pace.probe_interval, tls=tls)
        self.benchmarks = Benchmarks(stored.samples)
        self._profiles = Profiles(stored, self._table)
        self.catalogue = self._profiles.catalogue
        # The database's words, while it takes no writes.
        self.store_failure: str | None = None
        self._pace = pace
        self._hosts: dict[str, HostState] = {}
        self._sessions: dict[str, Session] = {}
        grace = Grace(now.mono + pace.restart_grace, self._has_registered)
        self._gateways = Gateways(self._table, lambda: self.table, self._members, grace)
        self.fence = Fence(self._hosts, self._gateways.streams, self.trust)
        # What daemons that may not come back were told, by host and instance. It can be lost on its way: a peer that
        # writes when its stream ends is given no reason by gRPC. Who then comes back hears it again.
        self._told: dict[tuple[str, str], Refusal] = {}
        # Names of resources that became other than they were, in the event at hand.
        self._names: set[str] = set()
        self._compile_due = now.mono
        self._leases_due: float | None = None
        self._seen_due = now.mono + SEEN_EVERY
        self._keys_due: float | None = None
        for kept in stored.hosts:
            host = self._hosts[kept.host_id] = HostState.restore(kept, now, self.health)
            self._table.put_host(kept.host)
            for service in host.services.values():
                self._table.put_service(service)
                self._table.put_upstream(host.upstream(service))
        for key in self.keys.valid(now.wall):
            self._table.put_key(key)
        self.figures = Figures(self.load_of)
        self._learning = Learning(self.figures, self._table, self._service_of, self._changed)
        self._learning.restore(stored.learned, self.benchmarks, now)
        self._benchmarked(self.benchmarks)
        self._table.compile()
        self._time_keys(now)
        self._handlers: dict[type[Event], Callable[[Any, Now], list[Effect]]] = {
            e.SessionOpened: self._session_opened,
            e.InventorySent: self._inventory_sent,
            e.SessionClosed: self._session_closed,
            e.HostStored: self._host_stored,
            e.HostForgotten: self._host_forgotten,
            e.KeyCreated: self._key_created,
            e.KeyRevoked: self._key_revoked,
            e.TokenCreated: self._members.token_created,
            e.TokenRevoked: self._members.token_revoked,
            e.Enrolled: self._enrolled,
            e.CertificateIssued: self._members.certificate_issued,
            e.PeerRevoked: self._peer_revoked,
            e.Probed: self._probed,
            e.Checked: self._checked,
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
            self._renew(event.session_id, now, event.sent)
            return []
        if type(event) is e.LoadSent:
            if (host := self._renew(event.session_id, now)) is not None:
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
        own = (self._leases_due, self._seen_due, self._keys_due, self.grace_ends, compile_due)
        dues = (*own, self._members.due, self.health.due)
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

    def _service_of(self, name: str) -> Service | None:
        found = self.service(name)
        return None if found is None else found[1]

    def load_of(self, name: str) -> ServiceLoad | None:
        """Of a service, as last seen."""
        found = self.service(name)
        return None if found is None else found[0].loads.get(name)

    def _changed(self, names: set[str]) -> None:
        self._names |= names

    def to_store(self, host_id: str) -> tuple[StoredHost, int] | None:
        """What is to be kept of a host, and the change to name in HostStored. None: it is gone."""
        host = self.host(host_id)
        return None if host is None else (host.to_store(), host.change)

    # Sessions.

    def _session_opened(self, event: e.SessionOpened, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        try:
            host_id = self.fence.place(event, now)
        except Refusal as no:
            return [EndSession(session_id=event.session_id, refusal=no)]
        if host_id != event.host_id:
            text = f"another machine calls itself {event.host_id!r}, which is taken; it goes as {host_id!r} instead"
            effects.append(Note(text=text, grave=True))
        host = self._hosts.get(host_id)
        told = self._told.get((host_id, event.instance_id))
        # Superseded is who is so by a session that stands.
        if told is not None and (told.why is not Why.SESSION_SUPERSEDED or (host is not None and host.session)):
            return [*effects, EndSession(session_id=event.session_id, refusal=told)]
        if host is None:
            host = self._hosts[host_id] = HostState(host_id, now, self.health)
        if (older := host.session) is not None:
            del self._sessions[older.session_id]
            text = f"a newer session of host {host_id!r} has taken over"
            refusal = Refusal(Why.SESSION_SUPERSEDED, text)
            effects.append(EndSession(session_id=older.session_id, refusal=refusal))
            if older.instance_id != event.instance_id:
                self._tell(older, refusal)
                effects.append(Note(text=f"{text}; the older node is told to stop", grave=True))
        lease = self._pace.lease_ttl if host.life is Life.ONLINE else max(self._pace.lease_ttl, FIRST_LEASE)
        expires = now.mono + lease
        session = Session(event.session_id, host_id, event.instance_id, expires, event.certificate)
        self._sessions[event.session_id] = host.session = session
        self._leases_due = min(self._leases_due or session.expires, session.expires)
        host.machine_id = event.machine_id or host.machine_id
        host.agent_version = event.agent_version
        host.certified = event.certificate is not None
        host.last_seen = now.wall
        effects.append(Welcome(session_id=event.session_id, host_id=host_id))
        return [*effects, *self._members.tell_newcomer(event.session_id, now)]

    def _tell(self, session: Session, refusal: Refusal) -> None:
        if session.instance_id:
            self._told[session.host_id, session.instance_id] = refusal
            if len(self._told) > _MOST_TOLD:
                del self._told[next(iter(self._told))]

    def _renew(self, session_id: str, now: Now, sent: float | None = None) -> HostState | None:
        session = self._sessions.get(session_id)
        if session is None:
            return None
        # Only the first lease is longer, and is not shortened by what comes before the offer.
        session.expires = max(session.expires, now.mono + self._pace.lease_ttl)
        host = self._hosts[session.host_id]
        host.last_seen = now.wall
        if sent is not None:
            host.clock_skew = sent - now.wall
        return host

    def _inventory_sent(self, event: e.InventorySent, now: Now) -> list[Effect]:
        host = self._renew(event.session_id, now)
        if host is None:
            return []
        session = self._sessions[event.session_id]
        offered = event.inventory
        if session.revision is not None and offered.revision <= session.revision:
            text = f"inventory revision {offered.revision} came after {session.revision}; it must increase by one"
            return self._end(session, Refusal(Why.OUT_OF_ORDER, text), now)
        try:
            accepted = inventory.accept(offered, host.host_id)
        except Refusal as refusal:
            return self._end(session, refusal, now)
        effects: list[Effect] = []
        if host.life is not Life.ONLINE:
            effects.append(Note(text=f"host {host.host_id!r} is online"))
        before, was, refused = host.services, (host.info, host.life), host.refused
        host.info, host.services, host.relay = accepted.host, accepted.services, accepted.relay
        host.refused = _by_service(accepted.refused)
        host.life = Life.ONLINE
        if not host.registered:
            host.registered = True
            self._gateways.release()
        for name in before.keys() - host.services.keys():
            self._names |= self._table.drop_service(name)
        self._names |= self._table.put_relay(host.host_id, host.relay)
        self._table.put_host(host.info)
        for service in host.services.values():
            self._names |= self._table.put_service(service)
        self._seek(host, reach.places(host.services.values(), host.relay), now)
        here = not host.certified and self._machine_id in (None, host.machine_id)
        self.health.tend(before, host.services, host.relay, here, now)
        self._judge(host)
        if session.revision is None:
            session.expires = now.mono + self._pace.lease_ttl
            self._leases_due = min(self._leases_due or session.expires, session.expires)
        session.revision = offered.revision
        session.unanswered = offered.revision, accepted.refused
        if was != (host.info, host.life):
            changed = before.keys() | host.services.keys()
        else:
            changed = {
                name
                for name in before.keys() | host.services.keys()
                if before.get(name) != host.services.get(name) or refused.get(name) != host.refused.get(name)
            }
        hosts = frozenset({host.host_id}) if was != (host.info, host.life) else frozenset()
        effects.append(Changed(hosts=hosts, services=frozenset(changed), cluster=True))
        return [*effects, *self._keep(host), *self._answer(host)]

    def _session_closed(self, event: e.SessionClosed, now: Now) -> list[Effect]:
        session = self._sessions.get(event.session_id)
        return [] if session is None else self._lose(session, Reason.STREAM_CLOSED, now)

    def _end(self, session: Session, refusal: Refusal, now: Now) -> list[Effect]:
        ending = EndSession(session_id=session.session_id, refusal=refusal)
        return [ending, *self._lose(session, Reason.STREAM_CLOSED, now)]

    def _lose(self, session: Session, reason: Reason, now: Now) -> list[Effect]:
        """The session is over, and its host with it."""
        del self._sessions[session.session_id]
        host = self._hosts[session.host_id]
        host.session = None
        if host.info is None:
            del self._hosts[session.host_id]
            return []
        # Of a presumed host that did not come so far as to register nothing new is known.
        if host.life is not Life.ONLINE:
            return []
        if host.info.condition.reason is Reason.STOPPING:
            reason = Reason.STOPPING
        host.leave(reason, now)
        self._seek(host, frozenset(), now)
        return self._left(host)

    def _left(self, host: HostState) -> list[Effect]:
        self._judge(host)
        note = Note(text=f"host {host.host_id!r} is offline: {host.absence.detail}")
        changed = Changed(hosts=frozenset({host.host_id}), services=frozenset(host.services), cluster=True)
        return [note, changed, *self._keep(host)]

    def _judge(self, host: HostState) -> None:
        """Brings what is said of its services in the table up to date."""
        for service in host.services.values():
            self._names |= self._table.put_upstream(host.upstream(service))

    def _seek(self, host: HostState, wanted: frozenset[reach.Place], now: Now) -> None:
        self.reach.want(host.host_id, wanted, now.mono)
        host.broken = self.reach.broken(host.host_id)
        if host.life is not Life.ONLINE:
            self.health.rest(host.services)

    def _probed(self, event: e.Probed, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for host_id in self.reach.tell(event.place, event.failure, now.mono):
            host = self._hosts[host_id]
            host.broken = self.reach.broken(host_id)
            self._judge(host)
            where = f"{event.place.host} port {event.place.port}, an address of host {host_id!r},"
            text = "takes connections again" if event.failure is None else f"can't be connected to: {event.failure}"
            effects.append(Note(text=f"{where} {text}", grave=event.failure is not None))
            effects.append(Changed(services=frozenset(host.services)))
        return effects

    def _checked(self, event: e.Checked, now: Now) -> list[Effect]:
        changed = self.health.checked(event.check, event.failure, now)
        return self._ailing({event.check.service} if changed else ())

    def _outcomes_reported(self, event: e.OutcomesReported, now: Now) -> list[Effect]:
        return self._learning.reported(event, now) + self._ailing(self.health.outcomes(event.rows, now))

    def _ailing(self, services: Iterable[str]) -> list[Effect]:
        """Something else is known of their health."""
        effects: list[Effect] = []
        for name in services:
            if (found := self.service(name)) is None:
                continue
            host, service = found
            upstream = host.upstream(service)
            if not (changed := self._table.put_upstream(upstream)):
                continue
            self._names |= changed
            effects.append(Changed(services=frozenset({name})))
            text = "takes requests" if upstream.routable else "takes no requests"
            text += f": {upstream.condition.detail}" if upstream.condition.detail else " again"
            effects.append(Note(text=f"service {name!r} {text}", grave=not upstream.routable))
        return effects

    # The database.

    def _keep(self, host: HostState) -> list[Effect]:
        return [StoreHost(host_id=host.host_id)] if host.must_be_stored() else []

    def _host_stored(self, event: e.HostStored, now: Now) -> list[Effect]:
        host = self._hosts.get(event.host_id)
        if host is None:
            return []
        host.stored = max(host.stored, event.change)
        return self._answer(host)

    def _answer(self, host: HostState) -> list[Effect]:
        """Answers the newest inventory, once it is stored."""
        session = host.session
        if session is None or session.unanswered is None or host.stored < host.change:
            return []
        (revision, refused), session.unanswered = session.unanswered, None
        return [AnswerInventory(session_id=session.session_id, revision=revision, refused=refused)]

    def _host_forgotten(self, event: e.HostForgotten, now: Now) -> list[Effect]:
        left, forgotten = f"host {event.host_id!r} has left", f"an operator made control forget host {event.host_id!r}"
        refusal = Refusal(Why.CREDENTIAL_REVOKED, left if event.left else forgotten)
        host = self._hosts.pop(event.host_id, None)
        effects: list[Effect] = []
        if host is not None and host.session is not None:
            del self._sessions[host.session.session_id]
            effects.append(EndSession(session_id=host.session.session_id, refusal=refusal))
            if host.session.certificate is None:
                self._tell(host.session, refusal)
        effects += self._revoke(PeerKind.NODE, event.host_id, refusal, now)
        if host is None:
            return effects
        self._seek(host, frozenset(), now)
        self._gateways.forget(host.host_id)
        for name in host.services:
            self._names |= self._table.drop_service(name)
        self._names |= self._table.put_relay(host.host_id, None)
        self._table.drop_host(host.host_id)
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

    # Keys.

    def _key_created(self, event: e.KeyCreated, now: Now) -> list[Effect]:
        self.keys.add(event.key, event.created)
        if event.key in self.keys.valid(now.wall):
            self._names |= self._table.put_key(event.key)
        self._time_keys(now)
        return []

    def _key_revoked(self, event: e.KeyRevoked, now: Now) -> list[Effect]:
        if not self.keys.revoke(event.key_id):
            return []
        self._names |= self._table.drop_key(event.key_id)
        return [EndCallers(key_id=event.key_id, refusal=Refusal(Why.CREDENTIAL_REVOKED, "this key was revoked"))]

    def _time_keys(self, now: Now) -> None:
        # Not later than in a minute, since the wall clock may be set.
        end = self.keys.next_expiry(now.wall)
        self._keys_due = None if end is None else now.mono + min(max(0.0, end - now.wall), SEEN_EVERY)

    # Certificates.

    def _enrolled(self, event: e.Enrolled, now: Now) -> list[Effect]:
        self.tokens.use(event.token_id)
        effects: list[Effect] = []
        for kind, peer_id in dict.fromkeys((c.kind, c.peer_id) for c in event.certificates):
            text = f"{kind.value} {peer_id!r} has joined anew, so that its older certificates are revoked"
            effects += self._revoke(kind, peer_id, Refusal(Why.CREDENTIAL_REVOKED, text), now)
            effects.append(Note(text=f"{kind.value} {peer_id!r} has joined by token {event.token_id}"))
        for certificate in event.certificates:
            self.trust.add(certificate)
        return effects

    def _peer_revoked(self, event: e.PeerRevoked, now: Now) -> list[Effect]:
        text = f"the certificates of {event.kind.value} {event.peer_id!r} were revoked; it must join again"
        return self._revoke(event.kind, event.peer_id, Refusal(Why.CREDENTIAL_REVOKED, text), now)

    def _revoke(self, kind: PeerKind, peer_id: str, refusal: Refusal, now: Now) -> list[Effect]:
        """Ends every stream that was opened by a certificate of this peer, and tells the others."""
        effects = self._members.revoke(kind, peer_id, now)
        if kind is PeerKind.NODE:
            for session in [s for s in self._sessions.values() if s.certificate and s.certificate.peer_id == peer_id]:
                effects += self._end(session, refusal, now)
            return effects
        return effects + self._gateways.revoke(peer_id, refusal)

    def grant(self, stream_id: str, now: Now) -> Grant | None:
        """For whom a certificate is that is asked for on this stream. None: the stream has ended."""
        if (session := self._sessions.get(stream_id)) is not None:
            host = self._hosts[session.host_id]
            return self.trust.grant(PeerKind.NODE, session.host_id, host.machine_id, session.certificate)
        if (subscriber := self._gateways.streams.get(stream_id)) is not None:
            return self.trust.grant(PeerKind.GATEWAY, subscriber.gateway_id, None, subscriber.certificate)
        return None

    def _has_registered(self, host_id: str) -> bool:
        host = self._hosts.get(host_id)
        return host is not None and host.registered

    # Timers.

    def _tick(self, event: e.Tick, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        if self._leases_due is not None and (late := now.mono - self._leases_due) >= 0:
            if late > HELD_UP:
                # Sessions are not lost by that: first what waits is read.
                self._leases_due = now.mono + min(late, self._pace.lease_ttl)
            else:
                effects += self._sweep(now)
        if self.grace_ends is not None and self.grace_ends <= now.mono:
            effects += self._end_grace(now)
        if self._keys_due is not None and self._keys_due <= now.mono:
            effects += self._expire_keys(now)
        if self.health.due is not None and self.health.due <= now.mono:
            effects += self._ailing(self.health.tick(now))
        if self._members.due is not None and self._members.due <= now.mono:
            effects += self._members.tell(now)
        if self._seen_due <= now.mono:
            self._seen_due = now.mono + SEEN_EVERY
            effects += self._learning.settle(now)
            seen = {host.host_id: host.last_seen for host in self._hosts.values() if host.life is Life.ONLINE}
            effects += [StoreSeen(seen=seen)] if seen else []
        return effects

    def _sweep(self, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for session in [s for s in self._sessions.values() if s.expires <= now.mono]:
            text = f"nothing came from host {session.host_id!r} for {self._pace.lease_ttl:g} s"
            effects.append(EndSession(session_id=session.session_id, refusal=Refusal(Why.SESSION_LOST, text)))
            effects += self._lose(session, Reason.LEASE_EXPIRED, now)
        first = min((session.expires for session in self._sessions.values()), default=None)
        self._leases_due = None if first is None else max(first, now.mono + SWEEP_EVERY)
        return effects

    def _end_grace(self, now: Now) -> list[Effect]:
        self._gateways.grace = None
        effects: list[Effect] = [Changed(cluster=True)]
        for host in self._hosts.values():
            if host.life is Life.PRESUMED:
                host.leave(Reason.LEASE_EXPIRED, now)
                effects += self._left(host)
        return effects + self._gateways.tell_what_was_withheld()

    def _expire_keys(self, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        valid = {key.key_id for key in self.keys.valid(now.wall)}
        for known in self.keys.all():
            key_id = known.key.key_id
            if key_id not in valid and (dropped := self._table.drop_key(key_id)):
                self._names |= dropped
                refusal = Refusal(Why.CREDENTIAL_REFUSED, f"the key {key_id!r} has expired")
                effects.append(EndCallers(key_id=key_id, refusal=refusal))
        self._time_keys(now)
        return effects


def _by_service(refused: Iterable[Refused]) -> dict[str, tuple[Refused, ...]]:
    found: dict[str, tuple[Refused, ...]] = {}
    for item in refused:
        found[item.service] = (*found.get(item.service, ()), item)
    return found
