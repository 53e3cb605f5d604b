"""Who calls: by node key, client key, or as a gateway on behalf of a client."""

import hashlib
import hmac
from collections.abc import Callable, Iterable

import msgspec

from geniehive.channels import CLIENT_KEY_ID, NODE_KEY
from geniehive_control.core.keys import Keys
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.rpc.policy import Caller

Metadata = Iterable[tuple[str, str | bytes]]


class Required(msgspec.Struct, frozen=True, kw_only=True):
    """What callers must prove. `node_keys`: SHA-256 of each."""

    clients: bool = True
    nodes: bool = True
    node_keys: tuple[bytes, ...] = ()


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Authenticator:
    """`wall` gives seconds since the epoch."""

    def __init__(self, required: Required, keys: Keys, wall: Callable[[], float]) -> None:
        self._required = required
        self._keys = keys
        self._wall = wall

    def caller(self, metadata: Metadata) -> Caller:
        """Refusal: CREDENTIAL_REFUSED or CREDENTIAL_REVOKED."""
        found = {name: value for name, value in metadata if isinstance(value, str)}
        node_key, bearer = found.get(NODE_KEY), _bearer(found.get("authorization"))
        for_client = found.get(CLIENT_KEY_ID)
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
