"""Certificates and join tokens: what changes them, and what everybody is told of it."""

from geniehive.rules.identity import PeerKind
from geniehive_control.core import events as e
from geniehive_control.core.effects import Effect, TellTrust
from geniehive_control.core.events import Now
from geniehive_control.core.records import Stored
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.tokens import Tokens
from geniehive_control.core.trust import Trust

# How often everybody is told of revocations at most: of a burst the first is told at once, the others together.
TELL_EVERY = 0.2


class Members:
    """`due`: when `tell` is to be called, on the clock that only grows; None: there is nothing to tell."""

    def __init__(self, stored: Stored, now: Now, *, tls: bool) -> None:
        self.tokens = Tokens(stored.tokens)
        self.trust = Trust(stored.certificates)
        self.due: float | None = None
        self.tls = tls
        self._told = now.mono - TELL_EVERY

    def token_created(self, event: e.TokenCreated, now: Now) -> list[Effect]:
        self.tokens.add(event.token)
        return []

    def token_revoked(self, event: e.TokenRevoked, now: Now) -> list[Effect]:
        self.tokens.revoke(event.token_id, now.wall)
        return []

    def certificate_issued(self, event: e.CertificateIssued, now: Now) -> list[Effect]:
        self.trust.add(event.certificate)
        return []

    def check_gateway(self, event: e.Subscribed, now: Now) -> None:
        """Refusal: NOT_YOURS, CREDENTIAL_REVOKED, CREDENTIAL_REFUSED."""
        shown = event.certificate
        if shown is None:
            return
        # It was good when the call came; the first message may have come much later.
        self.trust.check(shown, now.wall)
        if event.gateway_id != shown.peer_id:
            text = f"this certificate speaks for gateway {shown.peer_id!r}, not for {event.gateway_id!r}"
            raise Refusal(Why.NOT_YOURS, text)

    def revoke(self, kind: PeerKind, peer_id: str, now: Now) -> list[Effect]:
        return self.tell(now) if self.trust.revoke(kind, peer_id, now.wall) else []

    def tell(self, now: Now) -> list[Effect]:
        """Everybody, now or soon."""
        if not self.tls:
            return []
        due = self._told + TELL_EVERY
        if due > now.mono:
            self.due = due
            return []
        self._told, self.due = now.mono, None
        return [TellTrust(revoked=self.trust.revoked(now.wall))]

    def tell_newcomer(self, stream_id: str, now: Now) -> list[Effect]:
        return [TellTrust(stream_id=stream_id, revoked=self.trust.revoked(now.wall))] if self.tls else []
