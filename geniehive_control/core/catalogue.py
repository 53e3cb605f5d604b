"""Roles and aliases, of the file and of AdminService, as one whole: what may be said of them, and what is in force.

What one name is in both, the file's counts. An object of AdminService that the file makes invalid stays, and is warned
of: nobody's work is lost by an edit elsewhere.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from geniehive.rules.model import Alias, Owner, Role
from geniehive_control.core import profile_checks as checks
from geniehive_control.core.refusal import Refusal, Why, field_invalid

_MOST = 1000

# Labels come in any order.
_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Catalogue:
    """roles, aliases: what is in force, by name, with owners and etags."""

    def __init__(self, roles: Iterable[Role] = (), aliases: Iterable[Alias] = ()) -> None:
        """Those of AdminService, as they were stored."""
        self.roles: dict[str, Role] = {}
        self.aliases: dict[str, Alias] = {}
        # What an operator should look at.
        self.warnings: tuple[str, ...] = ()
        self._file = ""
        self._refused: str | None = None
        self._file_roles: dict[str, Role] = {}
        self._file_aliases: dict[str, Alias] = {}
        self._api_roles = {role.role_id: _role(role, Owner.API) for role in roles}
        self._api_aliases = {alias.alias: _alias(alias, Owner.API) for alias in aliases}
        self._merge()

    # What AdminService may do: each gives what is to be stored, and changes nothing. Refusal: as its proto says.

    def created(self, role: Role) -> Role:
        checks.role(role, "role")
        if (known := self.roles.get(role.role_id)) is not None:
            where = f"in {self._file}" if known.owner is Owner.FILE else "already"
            raise Refusal(
                Why.ALREADY_EXISTS, f"there is a role {role.role_id!r} {where}; update that, or take another id"
            )
        if len(self._api_roles) >= _MOST:
            raise field_invalid("role", f"there are {_MOST} roles already; delete one first")
        checks.fallbacks({**self.roles, role.role_id: role}, role, "role")
        return _role(role, Owner.API)

    def updated(self, role: Role, etag: str) -> Role:
        self.role_to_change(role.role_id, etag)
        checks.role(role, "role")
        checks.fallbacks({**self.roles, role.role_id: role}, role, "role")
        return _role(role, Owner.API)

    def may_delete_role(self, role_id: str, etag: str) -> None:
        self.role_to_change(role_id, etag)
        # Of the hidden ones too: they may come to light again.
        roles = [*self._file_roles.values(), *self._api_roles.values()]
        aliases = [*self._file_aliases.values(), *self._api_aliases.values()]
        held = {f"role {role.role_id}" for role in roles if role_id in role.routing_policy.fallback_role_ids}
        held |= {f"alias {alias.alias}" for alias in aliases if alias.target == role_id}
        held.discard(f"role {role_id}")
        if held:
            text = (
                f"{', '.join(sorted(held))} point{'s' if len(held) == 1 else ''} at role {role_id!r}; change that first"
            )
            raise Refusal(Why.STILL_REFERENCED, text, names="\n".join(sorted(held)))

    def set(self, alias: Alias, is_name: Callable[[str], bool], found: Mapping[str, Alias]) -> Alias:
        """is_name: whether a model or a service is called so. found: the aliases that control found by itself."""
        checks.alias(alias, "alias.alias", "alias.target")
        known = self.aliases.get(alias.alias)
        if known is not None:
            self._check_file(known.owner, f"alias {alias.alias!r}")
        if alias.etag != ("" if known is None else known.etag):
            _stale(f"alias {alias.alias!r}", exists=known is not None)
        if known is None and len(self._api_aliases) >= _MOST:
            raise field_invalid("alias", f"there are {_MOST} aliases already; delete one first")
        checks.no_chain({**self.aliases, alias.alias: alias}, alias, "alias.alias", "alias.target")
        if alias.target not in self.roles and not is_name(alias.target):
            text = f"no model, service or role is called {alias.target!r}"
            if alias.target in found:
                text = f"{alias.target!r} is an alias itself, of {found[alias.target].target}; name one of them"
            raise field_invalid("alias.target", text)
        return _alias(alias, Owner.API)

    def may_delete_alias(self, name: str, etag: str) -> None:
        known = self.aliases.get(name)
        if known is None:
            raise Refusal(Why.OBJECT_NOT_FOUND, f"there is no alias {name!r}", name=name)
        self._check_file(known.owner, f"alias {name!r}")
        if etag and etag != known.etag:
            _stale(f"alias {name!r}")

    def role_to_change(self, role_id: str, etag: str) -> Role:
        """As it is now. Refusal: OBJECT_NOT_FOUND, OWNED_BY_FILE, ETAG_STALE."""
        known = self.roles.get(role_id)
        if known is None:
            raise Refusal(Why.OBJECT_NOT_FOUND, f"there is no role {role_id!r}", name=role_id)
        self._check_file(known.owner, f"role {role_id!r}")
        if etag and etag != known.etag:
            _stale(f"role {role_id!r}")
        return known

    def _check_file(self, owner: Owner, what: str) -> None:
        if owner is Owner.FILE:
            raise Refusal(Why.OWNED_BY_FILE, f"{what} comes from {self._file}; change it there", file=self._file)

    # What has been done.

    def put_role(self, role: Role) -> None:
        self._api_roles[role.role_id] = _role(role, Owner.API)
        self._merge()

    def drop_role(self, role_id: str) -> None:
        self._api_roles.pop(role_id, None)
        self._merge()

    def put_alias(self, alias: Alias) -> None:
        self._api_aliases[alias.alias] = _alias(alias, Owner.API)
        self._merge()

    def drop_alias(self, name: str) -> None:
        self._api_aliases.pop(name, None)
        self._merge()

    # The file.

    def check_file(self, roles: Iterable[Role], aliases: Iterable[Alias]) -> None:
        """Refusal (FIELD_INVALID) for the first fault of what a file says: "roles[2].role_id", "aliases.NAME"."""
        listed = list(roles)
        by_id: dict[str, Role] = {}
        for index, role in enumerate(listed):
            checks.role(role, f"roles[{index}]")
            if role.role_id in by_id:
                raise field_invalid(f"roles[{index}].role_id", f"there are two roles {role.role_id!r} in this file")
            by_id[role.role_id] = role
        # A file may fall back to what operators made, but has nothing to do with circles among that.
        known = self._api_roles | by_id
        for index, role in enumerate(listed):
            checks.unknown_fallbacks(known, role, f"roles[{index}]")
            checks.cycles(by_id, role, f"roles[{index}]")
        by_name = {alias.alias: alias for alias in aliases}
        for name, alias in by_name.items():
            checks.alias(alias, f"aliases.{name}", f"aliases.{name}")
            checks.no_chain(by_name, alias, f"aliases.{name}", f"aliases.{name}")

    def take_file(self, file: str, roles: Iterable[Role], aliases: Iterable[Alias]) -> None:
        """In place of what it said before. It has been checked."""
        self._file, self._refused = file, None
        self._file_roles = {role.role_id: _role(role, Owner.FILE) for role in roles}
        self._file_aliases = {alias.alias: _alias(alias, Owner.FILE) for alias in aliases}
        self._merge()

    def refuse_file(self, fault: str) -> None:
        """What it says now can't be used; what it said before stays. fault: where it is and what, for people."""
        self._refused = fault
        self._merge()

    def _merge(self) -> None:
        self.roles = dict(sorted((self._api_roles | self._file_roles).items()))
        self.aliases = dict(sorted((self._api_aliases | self._file_aliases).items()))
        self.warnings = tuple(self._faults())

    def _faults(self) -> Iterable[str]:
        if self._refused is not None:
            yield f"the catalogue is refused as a whole, and what it said before stays in force: {self._refused}"
        for role_id in sorted(self._api_roles.keys() & self._file_roles.keys()):
            yield f"role {role_id} was made by an operator and is hidden by that of {self._file}; rename one of them"
        for name in sorted(self._api_aliases.keys() & self._file_aliases.keys()):
            yield f"alias {name} was set by an operator and is hidden by that of {self._file}; remove it there"
        for role in self.roles.values():
            try:
                checks.fallbacks(self.roles, role, f"role {role.role_id}")
            except Refusal as refusal:
                yield f"{refusal.message}; that fallback is passed over"
        for alias in self.aliases.values():
            if alias.target in self.aliases:
                yield f"alias {alias.alias} leads to {alias.target}, which is an alias itself, and so to nothing"


def _role(role: Role, owner: Owner) -> Role:
    bare = msgspec.structs.replace(role, owner=Owner.UNSPECIFIED, etag="")
    return msgspec.structs.replace(role, owner=owner, etag=_etag(bare))


def _alias(alias: Alias, owner: Owner) -> Alias:
    bare = msgspec.structs.replace(alias, owner=Owner.UNSPECIFIED, etag="")
    return msgspec.structs.replace(alias, owner=owner, etag=_etag(bare))


def _etag(bare: Role | Alias) -> str:
    """A hash of the contents: the same object has the same one after a restart."""
    return hashlib.blake2b(_encoder.encode(bare), digest_size=8).hexdigest()


def _stale(what: str, *, exists: bool = True) -> None:
    if exists:
        text = f"{what} is not as it was when you read it, or you gave no etag; read it again and repeat the change"
    else:
        text = f"{what} is gone; leave out the etag to make it anew"
    raise Refusal(Why.ETAG_STALE, text)
