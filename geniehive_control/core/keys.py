"""Client keys: look-up by digest, expiry, revocation. Keys themselves are never here, only their SHA-256."""

from collections.abc import Iterable

import msgspec

from geniehive.rules.model import ClientKey, Scope
from geniehive_control.core.records import StoredKey
from geniehive_control.core.refusal import Refusal, Why

# What else a scope allows.
_INCLUDES = {
    Scope.INFER: frozenset({Scope.INFER}),
    Scope.READ: frozenset({Scope.READ}),
    Scope.OPERATE: frozenset({Scope.OPERATE, Scope.READ}),
    Scope.ADMIN: frozenset(Scope),
}


def allowed(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Everything that these scopes allow."""
    return frozenset().union(*(_INCLUDES[scope] for scope in scopes))


class KnownKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key with the time it was created; 0 for configured ones."""

    key: ClientKey
    created: float = 0.0

    @property
    def order(self) -> tuple[float, str]:
        """Oldest first."""
        return self.created, self.key.key_id


class Keys:
    def __init__(self, configured: Iterable[ClientKey], stored: Iterable[StoredKey]) -> None:
        self._by_id: dict[str, KnownKey] = {}
        self._by_digest: dict[bytes, str] = {}
        self._revoked: set[bytes] = set()
        for key in stored:
            if key.revoked is None:
                self.add(key.key, key.created)
            else:
                self._revoked.add(key.key.sha256)
        # Last, since configuration wins over what was stored.
        for configured_key in configured:
            self.add(configured_key, 0.0)

    def add(self, key: ClientKey, created: float) -> None:
        self._by_id[key.key_id] = KnownKey(key=key, created=created)
        self._by_digest[key.sha256] = key.key_id

    def revoke(self, key_id: str) -> bool:
        """False if there is no such key."""
        known = self._by_id.pop(key_id, None)
        if known is None:
            return False
        self._by_digest.pop(known.key.sha256, None)
        self._revoked.add(known.key.sha256)
        return True

    def get(self, key_id: str) -> KnownKey | None:
        return self._by_id.get(key_id)

    def all(self) -> list[KnownKey]:
        """Expired ones too, oldest first."""
        return sorted(self._by_id.values(), key=lambda known: known.order)

    def valid(self, wall: float) -> list[ClientKey]:
        return [known.key for known in self._by_id.values() if not _expired(known.key, wall)]

    def next_expiry(self, wall: float) -> float | None:
        """Seconds since the epoch."""
        ends = [k.key.expires for k in self._by_id.values() if k.key.expires is not None and k.key.expires > wall]
        return min(ends, default=None)

    def by_digest(self, digest: bytes, wall: float) -> ClientKey:
        """The key with this SHA-256. Refusal if it is unknown, expired or revoked."""
        if digest in self._revoked:
            raise Refusal(Why.CREDENTIAL_REVOKED, "this key was revoked; ask the operator for another")
        known = self._by_id.get(self._by_digest.get(digest, ""))
        if known is None:
            raise Refusal(Why.CREDENTIAL_REFUSED, "this key is not known here; check that it is whole")
        return _unexpired(known.key, wall)

    def by_id(self, key_id: str, wall: float) -> ClientKey:
        """The key that a gateway names for its client. Refusal as in `by_digest`."""
        known = self._by_id.get(key_id)
        if known is None:
            raise Refusal(Why.CREDENTIAL_REFUSED, f"no client key has the id {key_id!r}")
        return _unexpired(known.key, wall)


def _expired(key: ClientKey, wall: float) -> bool:
    return key.expires is not None and key.expires <= wall


def _unexpired(key: ClientKey, wall: float) -> ClientKey:
    if _expired(key, wall):
        raise Refusal(Why.CREDENTIAL_REFUSED, f"the key {key.key_id!r} has expired; ask the operator for another")
    return key
