"""The sessions of nodes, and how hosts come and go with them: hello, leases, inventories, the end."""

from collections.abc import Iterable

from geniehive.rules.model import Reason
from geniehive_control.core import events as e
from geniehive_control.core import inventory
from geniehive_control.core.effects import (
    AnswerInventory,
    Changed,
    Effect,
    EndSession,
    Note,
    Refused,
    StoreHost,
    Welcome,
)
from geniehive_control.core.events import Now
from geniehive_control.core.fencing import Fence
from geniehive_control.core.gateways import Gateways
from geniehive_control.core.hosts import HostState, Session
from geniehive_control.core.listing import Listing
from geniehive_control.core.members import Members
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.verdict import Life

# Leases that end within this of one another are swept together: a thousand hosts don't need a timer each.
SWEEP_EVERY = 0.05
# The lease of a session that has only just begun. Nobody counts on its host yet; and of thousands that come at once the
# first offers are still being read when a usual lease ends, and who is sent away comes again with all of it.
FIRST_LEASE = 10.0
# A sweep that is later than this was held up, and so was the reading of what nodes sent.
HELD_UP = 0.25
# Daemons that are remembered as told to stop.
_MOST_TOLD = 1000


class Sessions:
    """live: by session_id. hosts: those that a session has, or had; who only said hello is gone when its session is.

    `due`: when `tick` is to be called, on the clock that only grows; None: no lease can end.
    """

    def __init__(
        self,
        hosts: dict[str, HostState],
        listing: Listing,
        members: Members,
        gateways: Gateways,
        *,
        lease_ttl: float,
    ) -> None:
        self.live: dict[str, Session] = {}
        self.due: float | None = None
        self.fence = Fence(hosts, gateways.streams, members.trust)
        self._hosts = hosts
        self._listing = listing
        self._members = members
        self._gateways = gateways
        self._lease_ttl = lease_ttl
        # What daemons that may not come back were told, by host and instance. It can be lost on its way: a peer that
        # writes when its stream ends is given no reason by gRPC. Who then comes back hears it again.
        self._told: dict[tuple[str, str], Refusal] = {}

    # They begin.

    def opened(self, event: e.SessionOpened, now: Now) -> list[Effect]:
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
            host = self._hosts[host_id] = HostState(host_id, now, self._listing.health)
        if (older := host.session) is not None:
            del self.live[older.session_id]
            text = f"a newer session of host {host_id!r} has taken over"
            refusal = Refusal(Why.SESSION_SUPERSEDED, text)
            effects.append(EndSession(session_id=older.session_id, refusal=refusal))
            if older.instance_id != event.instance_id:
                self._tell(older, refusal)
                effects.append(Note(text=f"{text}; the older node is told to stop", grave=True))
        lease = self._lease_ttl if host.life is Life.ONLINE else max(self._lease_ttl, FIRST_LEASE)
        expires = now.mono + lease
        session = Session(event.session_id, host_id, event.instance_id, expires, event.certificate)
        self.live[event.session_id] = host.session = session
        self.due = min(self.due or session.expires, session.expires)
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

    # They go on.

    def renew(self, session_id: str, now: Now, sent: float | None = None) -> HostState | None:
        """Something came; `sent`: when, by the node's clock. None: the session has ended."""
        session = self.live.get(session_id)
        if session is None:
            return None
        # Only the first lease is longer, and is not shortened by what comes before the offer.
        session.expires = max(session.expires, now.mono + self._lease_ttl)
        host = self._hosts[session.host_id]
        host.last_seen = now.wall
        if sent is not None:
            host.clock_skew = sent - now.wall
        return host

    def offered(self, event: e.InventorySent, now: Now) -> list[Effect]:
        host = self.renew(event.session_id, now)
        if host is None:
            return []
        session = self.live[event.session_id]
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
        self._listing.offered(host, before, now)
        if session.revision is None:
            session.expires = now.mono + self._lease_ttl
            self.due = min(self.due or session.expires, session.expires)
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
        return [*effects, *_keep(host), *_answer(host)]

    def stored(self, event: e.HostStored, now: Now) -> list[Effect]:
        host = self._hosts.get(event.host_id)
        if host is None:
            return []
        host.stored = max(host.stored, event.change)
        return _answer(host)

    # They end.

    def closed(self, event: e.SessionClosed, now: Now) -> list[Effect]:
        session = self.live.get(event.session_id)
        return [] if session is None else self._lose(session, Reason.STREAM_CLOSED, now)

    def tick(self, now: Now) -> list[Effect]:
        """Ends those from which nothing came for as long as their lease."""
        if self.due is None or (late := now.mono - self.due) < 0:
            return []
        if late > HELD_UP:
            # Sessions are not lost by that: first what waits is read.
            self.due = now.mono + min(late, self._lease_ttl)
            return []
        effects: list[Effect] = []
        for session in [s for s in self.live.values() if s.expires <= now.mono]:
            text = f"nothing came from host {session.host_id!r} for {self._lease_ttl:g} s"
            effects.append(EndSession(session_id=session.session_id, refusal=Refusal(Why.SESSION_LOST, text)))
            effects += self._lose(session, Reason.LEASE_EXPIRED, now)
        first = min((session.expires for session in self.live.values()), default=None)
        self.due = None if first is None else max(first, now.mono + SWEEP_EVERY)
        return effects

    def revoke(self, peer_id: str, refusal: Refusal, now: Now) -> list[Effect]:
        """Ends every stream that was opened by a certificate of this node."""
        effects: list[Effect] = []
        for session in [s for s in self.live.values() if s.certificate and s.certificate.peer_id == peer_id]:
            effects += self._end(session, refusal, now)
        return effects

    def drop(self, session: Session, refusal: Refusal) -> list[Effect]:
        """Its host is forgotten, so that nothing more is to be said of that."""
        del self.live[session.session_id]
        if session.certificate is None:
            self._tell(session, refusal)
        return [EndSession(session_id=session.session_id, refusal=refusal)]

    def presume_no_more(self, now: Now) -> list[Effect]:
        """Who did not come back since control's restart is away."""
        effects: list[Effect] = []
        for host in self._hosts.values():
            if host.life is Life.PRESUMED:
                host.leave(Reason.LEASE_EXPIRED, now)
                effects += self._left(host)
        return effects

    def _end(self, session: Session, refusal: Refusal, now: Now) -> list[Effect]:
        ending = EndSession(session_id=session.session_id, refusal=refusal)
        return [ending, *self._lose(session, Reason.STREAM_CLOSED, now)]

    def _lose(self, session: Session, reason: Reason, now: Now) -> list[Effect]:
        """The session is over, and its host with it."""
        del self.live[session.session_id]
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
        self._listing.rest(host, now)
        return self._left(host)

    def _left(self, host: HostState) -> list[Effect]:
        self._listing.judge(host)
        note = Note(text=f"host {host.host_id!r} is offline: {host.absence.detail}")
        changed = Changed(hosts=frozenset({host.host_id}), services=frozenset(host.services), cluster=True)
        return [note, changed, *_keep(host)]


def _keep(host: HostState) -> list[Effect]:
    return [StoreHost(host_id=host.host_id)] if host.must_be_stored() else []


def _answer(host: HostState) -> list[Effect]:
    """Answers the newest inventory, once it is stored."""
    session = host.session
    if session is None or session.unanswered is None or host.stored < host.change:
        return []
    (revision, refused), session.unanswered = session.unanswered, None
    return [AnswerInventory(session_id=session.session_id, revision=revision, refused=refused)]


def _by_service(refused: Iterable[Refused]) -> dict[str, tuple[Refused, ...]]:
    found: dict[str, tuple[Refused, ...]] = {}
    for item in refused:
        found[item.service] = (*found.get(item.service, ()), item)
    return found
