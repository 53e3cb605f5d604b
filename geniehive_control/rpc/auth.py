"""Who calls: by certificate, node key, client key, or as a gateway on behalf of a client."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from geniehive.channels import CLIENT_KEY_ID, NODE_KEY
from geniehive.kit import tls
from geniehive.rules.identity import PeerKind, read_uri
from geniehive_control.core.keys import Keys
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.trust import Certified, Trust
from geniehive_control.rpc.policy import Caller

# Certificates whose contents are remembered.
_MOST_READ = 4096

Metadata = Iterable[tuple[str, str | bytes]]


class Required(msgspec.Struct, frozen=True, kw_only=True):
    """What callers must prove. `node_keys`: SHA-256 of each."""

    clients: bool = True
    nodes: bool = True
    node_keys: tuple[bytes, ...] = ()


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Link(NamedTuple):
    """How a call came. certificate: in PEM, verified; None where none is asked for."""

    encrypted: bool = False
    certificate: bytes | None = None


PLAIN = Link()


def link_of(auth: Mapping[str, Iterable[bytes]]) -> Link:
    """auth: what gRPC says of the connection."""
    certificate = next(iter(auth.get("x509_pem_cert", ())), None)
    return Link(b"ssl" in auth.get("transport_security_type", ()), certificate)


class Authenticator:
    """`wall` gives seconds since the epoch."""

    def __init__(
        self,
        required: Required,
        keys: Keys,
        wall: Callable[[], float],
        trust: Trust | None = None,
        cluster_id: str = "",
    ) -> None:
        self._required = required
        self._keys = keys
        self._wall = wall
        self._trust = trust
        self._cluster_id = cluster_id
        # Certificates that were read, by SHA-256 of their PEM; a peer makes many calls by one.
        self._read: dict[bytes, Certified] = {}

    def caller(self, metadata: Metadata, link: Link = PLAIN) -> Caller:
        """Refusal: CREDENTIAL_REFUSED or CREDENTIAL_REVOKED."""
        found = {name: value for name, value in metadata if isinstance(value, str)}
        for_client = found.get(CLIENT_KEY_ID)
        if link.certificate is not None:
            return self._certified(self._certificate(link.certificate), for_client)
        node_key, bearer = found.get(NODE_KEY), _bearer(found.get("authorization"))
        if link.encrypted and (node_key is not None or for_client is not None):
            raise Refusal(
                Why.CREDENTIAL_REFUSED,
                "off control's own machine a daemon proves itself by certificate, at another port; "
                "it gets one by geniehive join",
            )
        if node_key is not None:
            return self._peer(node_key, for_client)
        if for_client is not None and self._required.nodes:
            raise Refusal(Why.CREDENTIAL_REFUSED, f"{CLIENT_KEY_ID} is for gateways, which prove themselves first")
        if bearer is not None:
            return self._tool(bearer)
        if for_client is not None:
            return self._for_client(for_client)
        if not self._required.clients:
            return Caller("anyone", peer=not self._required.nodes, trusted=True)
        if not self._required.nodes:
            return Caller("anyone", peer=True)
        raise Refusal(
            Why.CREDENTIAL_REFUSED, f"no key was sent: tools send authorization: Bearer KEY, daemons send {NODE_KEY}"
        )

    def _certificate(self, pem: bytes) -> Certified:
        digest = hashlib.sha256(pem).digest()
        if (known := self._read.get(digest)) is not None:
            return known
        try:
            seen = tls.read_certificate(pem)
        except ValueError as error:
            raise Refusal(Why.CREDENTIAL_REFUSED, "this certificate cannot be read") from error
        peers = [peer for peer in map(read_uri, seen.uris) if peer is not None]
        if len(peers) != 1 or peers[0].cluster_id != self._cluster_id:
            raise Refusal(Why.CREDENTIAL_REFUSED, "this certificate is of no node and no gateway of this cluster")
        found = Certified(peers[0].kind, peers[0].peer_id, seen.serial, seen.not_after)
        if len(self._read) >= _MOST_READ:
            del self._read[next(iter(self._read))]
        self._read[digest] = found
        return found

    def _certified(self, shown: Certified, for_client: str | None) -> Caller:
        if self._trust is None:
            raise Refusal(Why.CREDENTIAL_REFUSED, "this control takes no certificates")
        self._trust.check(shown, self._wall())
        if for_client is None:
            return Caller(shown.words, peer=True, certificate=shown)
        if shown.kind is not PeerKind.GATEWAY:
            raise Refusal(Why.CREDENTIAL_REFUSED, f"{CLIENT_KEY_ID} is for gateways, and this is {shown.words}")
        return self._for_client(for_client)._replace(certificate=shown)

    def _peer(self, node_key: str, for_client: str | None) -> Caller:
        given = digest(node_key)
        # Each is compared, so that the time tells nothing.
        known = [hmac.compare_digest(given, key) for key in self._required.node_keys]
        if self._required.nodes and not any(known):
            raise Refusal(Why.CREDENTIAL_REFUSED, f"this {NODE_KEY} is not known here; check the node_key setting")
        return Caller("peer", peer=True) if for_client is None else self._for_client(for_client)

    def _for_client(self, key_id: str) -> Caller:
        if not self._required.clients and self._keys.get(key_id) is None:
            return Caller("anyone", peer=True, trusted=True)
        key = self._keys.by_id(key_id, self._wall())
        return Caller(key.key_id, peer=True, scopes=key.scopes, key_id=key.key_id)

    def _tool(self, bearer: str) -> Caller:
        try:
            key = self._keys.by_digest(digest(bearer), self._wall())
        except Refusal:
            if self._required.clients:
                raise
            return Caller("anyone", trusted=True)
        return Caller(key.key_id, scopes=key.scopes, key_id=key.key_id, trusted=not self._required.clients)


def _bearer(header: str | None) -> str | None:
    if header is None:
        return None
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
