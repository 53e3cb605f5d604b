"""Certificates that were issued, and which of them are no good any more. They themselves are never here."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive_control.core.records import Origin, StoredCertificate
from geniehive_control.core.refusal import Refusal, Why

# Of an id, in characters.
_LONGEST = 63
# How long a certificate is remembered after it expired, in seconds: a clock that was wrong for a while costs nothing.
REMEMBERED = 30 * 86400.0


def near(wanted: str, number: int) -> str:
    """The id of the machine that came second, third and so on with the id that it wanted."""
    ending = f"-{number}"
    return wanted[: _LONGEST - len(ending)] + ending


class Certified(NamedTuple):
    """The certificate by which a daemon proved itself. expires: seconds since the epoch."""

    kind: PeerKind
    peer_id: str
    serial: str
    expires: float

    @property
    def words(self) -> str:
        return f"{self.kind.value} {self.peer_id}"


class Grant(NamedTuple):
    """For whom a certificate is that is asked for on an open stream."""

    kind: PeerKind
    peer_id: str
    machine_id: str | None
    origin: Origin


class Trust:
    def __init__(self, certificates: Iterable[StoredCertificate]) -> None:
        # By peer, and then by serial, oldest first.
        self._peers: dict[tuple[PeerKind, str], dict[str, StoredCertificate]] = {}
        self._revoked: dict[str, float] = {}
        for certificate in sorted(certificates, key=lambda certificate: certificate.issued):
            self.add(certificate)

    def add(self, certificate: StoredCertificate) -> None:
        held = self._peers.setdefault((certificate.kind, certificate.peer_id), {})
        for old in [c for c in held.values() if c.expires + REMEMBERED <= certificate.issued]:
            del held[old.serial]
            self._revoked.pop(old.serial, None)
        held[certificate.serial] = certificate
        if certificate.revoked is not None:
            self._revoked[certificate.serial] = certificate.expires

    def get(self, kind: PeerKind, peer_id: str, serial: str) -> StoredCertificate | None:
        return self._peers.get((kind, peer_id), {}).get(serial)

    def live(self, kind: PeerKind, peer_id: str, wall: float) -> list[StoredCertificate]:
        """Neither revoked nor expired, oldest first."""
        held = self._peers.get((kind, peer_id), {}).values()
        return [certificate for certificate in held if certificate.revoked is None and certificate.expires > wall]

    def clones(self, host_id: str, wall: float) -> list[str]:
        """Nodes that were given certificates as copies of this host, and the copies of these."""
        found: list[str] = []
        for kind, peer_id in sorted(self._peers, key=lambda peer: peer[1]):
            _, dash, number = peer_id.rpartition("-")
            if kind is not PeerKind.NODE or not dash or not number.isdecimal() or peer_id == host_id:
                continue
            if near(host_id, int(number)) == peer_id and any(
                certificate.origin is Origin.CLONE for certificate in self.live(kind, peer_id, wall)
            ):
                found += [peer_id, *self.clones(peer_id, wall)]
        return found

    def grant(self, kind: PeerKind, peer_id: str, machine_id: str | None, shown: Certified | None) -> Grant:
        """machine_id: None if the stream does not tell. shown: by what the stream was opened."""
        if shown is None:
            return Grant(kind, peer_id, machine_id, Origin.KEY)
        if shown.peer_id != peer_id:
            return Grant(kind, peer_id, machine_id, Origin.CLONE)
        older = self.get(kind, peer_id, shown.serial)
        if older is None:
            return Grant(kind, peer_id, machine_id, Origin.TOKEN)
        return Grant(kind, peer_id, machine_id or older.machine_id, older.origin)

    def check(self, shown: Certified, wall: float) -> None:
        """Refusal if who shows this certificate is not who it says, or no longer. Its signature was verified before.

        A connection outlives the certificate that it was made with; then the peer's newer ones count.
        """
        if shown.serial in self._revoked:
            raise Refusal(
                Why.CREDENTIAL_REVOKED,
                f"the certificate of {shown.words} was revoked; it must join again",
            )
        expired = shown.expires <= wall
        known = self.get(shown.kind, shown.peer_id, shown.serial) is not None
        if (known and not expired) or (expired and self.live(shown.kind, shown.peer_id, wall)):
            return
        if expired:
            raise Refusal(Why.CREDENTIAL_REFUSED, f"the certificate of {shown.words} has expired; join again")
        raise Refusal(
            Why.CREDENTIAL_REFUSED,
            f"control does not know this certificate of {shown.words}, though it is of its CA: was its database "
            "replaced by an older one? Join again",
        )

    def revoke(self, kind: PeerKind, peer_id: str, at: float) -> bool:
        """All that this peer has. False if it had none that was good."""
        held = self._peers.get((kind, peer_id), {})
        good = self.live(kind, peer_id, at)
        for serial, certificate in held.items():
            if certificate.revoked is None:
                held[serial] = msgspec.structs.replace(certificate, revoked=at)
                self._revoked[serial] = certificate.expires
        return bool(good)

    def revoked(self, wall: float) -> tuple[str, ...]:
        """Serials of those that have not expired yet."""
        return tuple(sorted(serial for serial, expires in self._revoked.items() if expires > wall))
