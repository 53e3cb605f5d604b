"""Which alias a name is, or is shadowed by: configured ones, globs, and names that control finds by itself."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from geniehive.rules import canonical
from geniehive.rules.families import identify
from geniehive.rules.model import Alias, Asset, Owner
from geniehive.rules.names import glob_pattern, longest_first


class Aliases:
    """Those that operators configured."""

    def __init__(self) -> None:
        self._aliases: dict[str, Alias] = {}
        self._globs: list[tuple[re.Pattern[str], Alias]] = []

    def __iter__(self) -> Iterator[str]:
        return iter(self._aliases)

    def __contains__(self, name: object) -> bool:
        return name in self._aliases

    def replace(self, aliases: Mapping[str, Alias], known: Callable[[], Iterable[str]]) -> set[str]:
        """In place of those before. known: all names; those are given that mean something else now."""
        stale = {n for n in aliases.keys() | self._aliases.keys() if aliases.get(n) != self._aliases.get(n)}
        globs = [alias for name in stale for alias in (aliases.get(name), self._aliases.get(name)) if alias is not None]
        patterns = [glob_pattern(alias.alias) for alias in globs if alias.glob]
        if patterns:
            stale |= {name for name in known() if any(pattern.match(name) for pattern in patterns)}
        self._aliases = dict(aliases)
        ordered = sorted((alias for alias in aliases.values() if alias.glob), key=lambda a: longest_first(a.alias))
        self._globs = [(glob_pattern(alias.alias), alias) for alias in ordered]
        return stale

    def of(self, name: str) -> Alias | None:
        """The alias that decides what a name means. No glob makes a name stand for itself."""
        found = self._aliases.get(name)
        if found is not None:
            return found
        for pattern, alias in self._globs:
            if pattern.match(name):
                return alias if alias.target != name else None
        return None


class Found:
    """Models that services spell differently, and the names under which they are one."""

    def __init__(self) -> None:
        self._members: Counter[canonical.Member] = Counter()
        self._names: dict[str, tuple[str, ...]] = {}
        self._changed = False

    def add(self, asset: Asset) -> None:
        member = _member(asset)
        self._members[member] += 1
        self._changed = self._changed or self._members[member] == 1

    def drop(self, asset: Asset) -> None:
        member = _member(asset)
        self._members[member] -= 1
        if not self._members[member]:
            del self._members[member]
            self._changed = True

    def get(self, name: str) -> tuple[str, ...]:
        """The asset_ids that are one under this name; empty: it is none."""
        return self._names.get(name, ())

    def settle(self) -> set[str]:
        """Brings names up to date. Those that mean something else now."""
        if not self._changed:
            return set()
        self._changed = False
        before, self._names = self._names, canonical.join(self._members)
        return canonical.differing(before, self._names)

    def aliases(self) -> Iterable[Alias]:
        for name, asset_ids in sorted(self._names.items()):
            yield Alias(alias=name, target=", ".join(asset_ids), owner=Owner.FOUND)


def _member(asset: Asset) -> canonical.Member:
    found = identify(asset)
    return canonical.Member(asset.asset_id, found.model, found.bits, asset.digest)
