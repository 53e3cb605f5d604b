"""What follows for the streams of nodes and gateways when these join, or their certificates are revoked."""

from collections.abc import Mapping

from geniehive.rules.identity import PeerKind
from geniehive_control.core import events as e
from geniehive_control.core.effects import Effect, Note
from geniehive_control.core.events import Now
from geniehive_control.core.gateways import Gateways
from geniehive_control.core.hosts import HostState
from geniehive_control.core.members import Members
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.sessions import Sessions
from geniehive_control.core.trust import Grant


class Peers:
    def __init__(
        self, hosts: Mapping[str, HostState], members: Members, sessions: Sessions, gateways: Gateways
    ) -> None:
        self._hosts = hosts
        self._members = members
        self._sessions = sessions
        self._gateways = gateways

    def enrolled(self, event: e.Enrolled, now: Now) -> list[Effect]:
        self._members.tokens.use(event.token_id)
        effects: list[Effect] = []
        for kind, peer_id in dict.fromkeys((c.kind, c.peer_id) for c in event.certificates):
            text = f"{kind.value} {peer_id!r} has joined anew, so that its older certificates are revoked"
            effects += self.revoke(kind, peer_id, Refusal(Why.CREDENTIAL_REVOKED, text), now)
            effects.append(Note(text=f"{kind.value} {peer_id!r} has joined by token {event.token_id}"))
        for certificate in event.certificates:
            self._members.trust.add(certificate)
        return effects

    def revoked(self, event: e.PeerRevoked, now: Now) -> list[Effect]:
        text = f"the certificates of {event.kind.value} {event.peer_id!r} were revoked; it must join again"
        return self.revoke(event.kind, event.peer_id, Refusal(Why.CREDENTIAL_REVOKED, text), now)

    def revoke(self, kind: PeerKind, peer_id: str, refusal: Refusal, now: Now) -> list[Effect]:
        """Ends every stream that was opened by a certificate of this peer, and tells the others."""
        effects = self._members.revoke(kind, peer_id, now)
        if kind is PeerKind.NODE:
            return effects + self._sessions.revoke(peer_id, refusal, now)
        return effects + self._gateways.revoke(peer_id, refusal)

    def grant(self, stream_id: str) -> Grant | None:
        """For whom a certificate is that is asked for on this stream. None: the stream has ended."""
        trust = self._members.trust
        if (session := self._sessions.live.get(stream_id)) is not None:
            machine_id = self._hosts[session.host_id].machine_id
            return trust.grant(PeerKind.NODE, session.host_id, machine_id, session.certificate)
        if (subscriber := self._gateways.streams.get(stream_id)) is not None:
            return trust.grant(PeerKind.GATEWAY, subscriber.gateway_id, None, subscriber.certificate)
        return None
