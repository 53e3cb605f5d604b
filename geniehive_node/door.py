"""Who may come in at the relay.

Each connection is judged once, when it is there: by the certificate of its gateway, or of control, which may only ask
whether engines are well; or, on loopback without TLS, not at all, since every request then shows the relay's token.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from geniehive.membership import Credential
from geniehive.rules.identity import CONTROL_NAME, Peer, PeerKind, read_uri

log = logging.getLogger(__name__)

# A gateway keeps some dozens, and opens one more for each request under way beyond them.
CONNECTIONS = 4096


class Refusal(NamedTuple):
    """An answer of the relay's own. word: for gateways, message: for people."""

    status: int
    word: str
    message: str
    retry_after: int | None = None


_CROWDED = Refusal(503, "busy", f"{CONNECTIONS} connections to this relay are open, and no more are taken", 1)


class Door:
    """Of one relay. credential: this node's, where the relay is reached by TLS; None on loopback."""

    def __init__(self, credential: Credential | None, connections: int = CONNECTIONS) -> None:
        self._credential = credential
        self._most = connections
        # With the serial of the certificate that each came with.
        self._open: dict[asyncio.Transport, str] = {}
        self._complained: set[str] = set()
        if credential is not None:
            credential.listeners.append(self._recheck)

    def close(self) -> None:
        if self._credential is not None:
            self._credential.listeners.remove(self._recheck)

    @property
    def connections(self) -> int:
        return len(self._open)

    def enter(self, transport: asyncio.Transport) -> Refusal | None:
        """None: it may ask. Else the one answer that it gets."""
        refusal = None
        serial = ""
        if self._credential is not None:
            certificate = transport.get_extra_info("peercert") or {}
            serial = _serial(certificate)
            refusal = self._judge(self._credential, certificate, serial)
        if refusal is None and len(self._open) >= self._most:
            refusal = _CROWDED
        if refusal is not None:
            self._complain(refusal.message)
            return refusal
        self._open[transport] = serial
        return None

    def only_probes(self, transport: asyncio.Transport) -> bool:
        """Whether this is control."""
        return self._credential is not None and _is_control(transport.get_extra_info("peercert") or {})

    def leave(self, transport: asyncio.Transport) -> None:
        self._open.pop(transport, None)

    def _judge(self, credential: Credential, certificate: Mapping[str, Any], serial: str) -> Refusal | None:
        """Of what TLS found to be of our CA."""
        if _is_control(certificate):
            return None
        ours = credential.peer.cluster_id if credential.peer is not None else ""
        peer = _peer(certificate)
        if peer is None:
            return _forbidden("its certificate names no daemon of GenieHive")
        if peer.cluster_id != ours:
            return _forbidden(f"its certificate is of another cluster, {peer.cluster_id}")
        if peer.kind is not PeerKind.GATEWAY:
            return _forbidden(f"its certificate is that of {peer.words}")
        if serial in credential.revoked:
            return _forbidden(f"the certificate of {peer.words} was revoked")
        return None

    def _recheck(self) -> None:
        """Trust changed: who came with what is revoked now is thrown out, in the middle of an answer too."""
        assert self._credential is not None
        revoked = self._credential.revoked
        theirs = [transport for transport, serial in self._open.items() if serial in revoked]
        if theirs:
            log.warning("a gateway's certificate was revoked: %d connections to the relay are cut", len(theirs))
        for transport in theirs:
            transport.abort()

    def _complain(self, message: str) -> None:
        if message not in self._complained and len(self._complained) < 1000:
            self._complained.add(message)
            log.warning("the relay takes no requests of somebody: %s", message)


def _forbidden(why: str) -> Refusal:
    return Refusal(403, "unauthorized", f"only gateways of this cluster may ask this relay: {why}")


def _is_control(certificate: Mapping[str, Any]) -> bool:
    """Each cluster has a CA of its own, which gives this name to nobody else."""
    return ("DNS", CONTROL_NAME) in certificate.get("subjectAltName", ())


def _peer(certificate: Mapping[str, Any]) -> Peer | None:
    names = certificate.get("subjectAltName", ())
    found = [peer for kind, value in names if kind == "URI" and (peer := read_uri(value)) is not None]
    return found[0] if len(found) == 1 else None


def _serial(certificate: Mapping[str, Any]) -> str:
    """As `kit.tls` writes it."""
    return f"{int(certificate.get('serialNumber', '0'), 16):x}"
