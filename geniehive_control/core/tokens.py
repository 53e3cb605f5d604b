"""Join tokens: look-up by digest, uses, expiry, revocation. Tokens themselves are never here, only their SHA-256."""

from collections.abc import Iterable

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive_control.core.records import StoredToken
from geniehive_control.core.refusal import Refusal, Why

_NEW = "have a new one made by the operator: geniehive tokens create"
# How long a token is remembered after it expired, in seconds, so that who comes late is told why.
REMEMBERED = 7 * 86400.0


class Tokens:
    def __init__(self, stored: Iterable[StoredToken]) -> None:
        self._by_id: dict[str, StoredToken] = {}
        self._by_digest: dict[bytes, str] = {}
        for token in stored:
            self.add(token)

    def add(self, token: StoredToken) -> None:
        for old in [t for t in self._by_id.values() if t.expires + REMEMBERED <= token.created]:
            del self._by_id[old.token_id]
            del self._by_digest[old.sha256]
        self._by_id[token.token_id] = token
        self._by_digest[token.sha256] = token.token_id

    def use(self, token_id: str) -> None:
        if (token := self._by_id.get(token_id)) is not None:
            self._by_id[token_id] = msgspec.structs.replace(token, uses_left=max(0, token.uses_left - 1))

    def revoke(self, token_id: str, at: float) -> None:
        if (token := self._by_id.get(token_id)) is not None and token.revoked is None:
            self._by_id[token_id] = msgspec.structs.replace(token, revoked=at)

    def usable(self, wall: float) -> list[StoredToken]:
        """Oldest first."""
        found = [t for t in self._by_id.values() if t.revoked is None and t.uses_left > 0 and t.expires > wall]
        return sorted(found, key=lambda token: (token.created, token.token_id))

    def get(self, token_id: str, wall: float) -> StoredToken:
        """One that can still be used. Refusal: OBJECT_NOT_FOUND."""
        for token in self.usable(wall):
            if token.token_id == token_id:
                return token
        raise Refusal(
            Why.OBJECT_NOT_FOUND, f"there is no join token {token_id!r} that could still be used", name=token_id
        )

    def by_digest(self, digest: bytes, kinds: Iterable[PeerKind], wall: float) -> StoredToken:
        """The token with this SHA-256. Refusal (JOIN_TOKEN_REFUSED) unless it lets peers of all these kinds join."""
        token = self._by_id.get(self._by_digest.get(digest, ""))
        if token is None:
            raise refused(f"is not known here: it was altered, or is of another cluster; copy it again, or {_NEW}")
        if token.revoked is not None:
            raise refused(f"was revoked; {_NEW}")
        if token.expires <= wall:
            raise refused(f"has expired; {_NEW}")
        if token.uses_left <= 0:
            raise used_up()
        for kind in kinds:
            if kind not in token.kinds:
                raise refused(f"lets no {kind.value} join; {_NEW}")
        return token


def used_up() -> Refusal:
    return refused(f"was used as often as it may be; {_NEW}")


def refused(why: str) -> Refusal:
    """why: what is said of the token."""
    return Refusal(Why.JOIN_TOKEN_REFUSED, f"this join token {why}")
