"""Under which id a machine goes: its own, or another one if that is somebody else's."""

import itertools
from collections.abc import Callable, Mapping

from geniehive.rules.identity import PeerKind
from geniehive_control.core.events import Now, SessionOpened
from geniehive_control.core.hosts import HostState
from geniehive_control.core.records import Origin, StoredCertificate
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.subscriber import Subscriber
from geniehive_control.core.trust import Trust, near
from geniehive_control.core.verdict import Life

# Machines that go by one certificate, since they are copies.
MOST_CLONES = 200


class Fence:
    """Looks at what the registry holds, and changes nothing."""

    def __init__(self, hosts: Mapping[str, HostState], subscribers: Mapping[str, Subscriber], trust: Trust) -> None:
        self._hosts = hosts
        self._subscribers = subscribers
        self._trust = trust

    # A session.

    def place(self, event: SessionOpened, now: Now) -> str:
        """The host that this session counts as.

        Refusal: NOT_YOURS, CREDENTIAL_REVOKED, CREDENTIAL_REFUSED.
        """
        shown = event.certificate
        if shown is not None:
            # It was good when the call came; the hello may have come much later.
            self._trust.check(shown, now.wall)
            if event.host_id != shown.peer_id:
                raise Refusal(
                    Why.NOT_YOURS, f"this certificate speaks for host {shown.peer_id!r}, not for {event.host_id!r}"
                )
        host = self._hosts.get(event.host_id)
        held = host is not None and _is_held(host)
        others = self._machine(event.host_id, now)
        other_machine = others is not None and event.machine_id is not None and others != event.machine_id
        if other_machine and (held or (shown is None and self._joined(event.host_id, now))):
            most = MOST_CLONES if shown is not None else None
            return self._free(event.host_id, lambda wanted: self._may_be(wanted, event, now), most)
        if host is not None and held and host.certified != (shown is not None):
            by, needed = ("a certificate", "the node key") if shown is not None else ("the node key", "a certificate")
            raise Refusal(
                Why.NOT_YOURS,
                f"host {event.host_id!r} is held by a node that proved itself by {needed}, and this one came by {by}. "
                "Stop that one, or give this one another name",
            )
        return event.host_id

    def _may_be(self, host_id: str, event: SessionOpened, now: Now) -> bool:
        """Whether this id is free, or was given to this very machine before."""
        joined = self._live(host_id, now)
        if event.certificate is not None:
            # Only what a clone was given: an id that joined by a token of its own is not to be had by this certificate.
            if any(c.origin is not Origin.CLONE or c.machine_id != event.machine_id for c in joined):
                return False
        elif any(certificate.origin is not Origin.KEY for certificate in joined):
            return False
        host = self._hosts.get(host_id)
        if host is None:
            return True
        if host.certified != (event.certificate is not None):
            return False
        return host.machine_id is not None and host.machine_id == event.machine_id

    # Joining.

    def enrol(self, wanted: str, machine_id: str | None, now: Now) -> str:
        """The id that a joining machine gets."""
        return (
            wanted
            if self._may_join(wanted, machine_id, now)
            else self._free(wanted, lambda found: self._may_join(found, machine_id, now))
        )

    def _may_join(self, peer_id: str, machine_id: str | None, now: Now) -> bool:
        host = self._hosts.get(peer_id)
        if host is not None and _is_held(host) and not host.certified:
            return False
        if any(s.gateway_id == peer_id and s.certificate is None for s in self._subscribers.values()):
            return False
        if host is None and not self._live(peer_id, now):
            return True
        # Here a machine that does not tell which it is does not count as the same.
        return self._machine(peer_id, now) == machine_id

    # Both.

    def _machine(self, peer_id: str, now: Now) -> str | None:
        """The machine that goes by this id; None if it did not tell."""
        host = self._hosts.get(peer_id)
        if host is not None and host.machine_id is not None:
            return host.machine_id
        known = [certificate for certificate in self._live(peer_id, now) if certificate.machine_id is not None]
        return max(known, key=lambda certificate: certificate.issued).machine_id if known else None

    def _joined(self, host_id: str, now: Now) -> bool:
        return any(certificate.origin is not Origin.KEY for certificate in self._live(host_id, now))

    def _live(self, peer_id: str, now: Now) -> list[StoredCertificate]:
        """Of whatever kind: node and gateway of one machine go by one id."""
        return [found for kind in PeerKind for found in self._trust.live(kind, peer_id, now.wall)]

    def _free(self, wanted: str, may_be: Callable[[str], bool], most: int | None = None) -> str:
        """An id near the one wanted. Refusal (NOT_YOURS) if the first `most` are taken."""
        for number in itertools.count(2):
            if most is not None and number > most:
                break
            if may_be(found := near(wanted, number)):
                return found
        text = f"{most} machines go by the certificate of {wanted!r} already; let this one join by a token of its own"
        raise Refusal(Why.NOT_YOURS, text)


def _is_held(host: HostState) -> bool:
    return host.session is not None or host.life is Life.PRESUMED
