"""Who may call, by SHA-256 of the key. Scopes include one another: ADMIN all, OPERATE also READ."""

from collections.abc import Callable, Collection
from hashlib import sha256

import msgspec

from geniehive.rules.model import ClientKey, Scope

_IMPLIED = {
    Scope.INFER: frozenset({Scope.INFER}),
    Scope.READ: frozenset({Scope.READ}),
    Scope.OPERATE: frozenset({Scope.OPERATE, Scope.READ}),
    Scope.ADMIN: frozenset(Scope),
}

TO_INFER = frozenset({Scope.INFER})
TO_LOOK = frozenset({Scope.INFER, Scope.READ})
TO_READ = frozenset({Scope.READ})
TO_OPERATE = frozenset({Scope.OPERATE})


class NoKey(msgspec.Struct, frozen=True):
    """The call carried no key."""


class UnknownKey(msgspec.Struct, frozen=True):
    """The call carried a key that nobody has given out, or that was revoked or has expired."""


class ScopeMissing(msgspec.Struct, frozen=True):
    """The key is known but may not do this; any of `needed` would do."""

    key_id: str
    needed: frozenset[Scope]


class Caller(msgspec.Struct, frozen=True):
    """key_id: "" where authentication is off."""

    key_id: str = ""


def authenticate(
    find: Callable[[bytes], ClientKey | None], presented: str | None, needed: Collection[Scope]
) -> Caller | NoKey | UnknownKey | ScopeMissing:
    """find: a key by its SHA-256. Expiry is control's to judge: it takes such keys out of the table."""
    if not presented:
        return NoKey()
    key = find(sha256(presented.encode("utf-8", "surrogateescape")).digest())
    if key is None:
        return UnknownKey()
    for scope in key.scopes:
        if not _IMPLIED[scope].isdisjoint(needed):
            return Caller(key.key_id)
    return ScopeMissing(key.key_id, frozenset(needed))
