"""Every name that clients may write, and what it means: kept up to date by what changes.

A change makes names stale; `compile` gives their routes anew. What a name took from others is remembered, so that an
alias is compiled again when what it stands for is.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from geniehive.rules.model import Alias, NameKind, OffloadHint, Role, Route, Strategy, TierEndpoint
from geniehive.rules.operations import Operation
from geniehive_control.core import compile as compiling
from geniehive_control.core import scoring
from geniehive_control.core.aliases import Aliases, Found
from geniehive_control.core.compile import Claim, Direct, Meanings
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.facts import Facts
from geniehive_control.core.merits import Merits
from geniehive_control.core.offers import Moved, Offers
from geniehive_control.core.tiers import Roles

# An endpoint of a role or an alias costs less than one of a name of its own, which is looked at by itself.
_CHEAPER = 8


class Naming:
    def __init__(self, defaults: RoutingDefaults, offers: Offers, merits: Merits) -> None:
        self._defaults = defaults
        self._offers = offers
        self._merits = merits
        self.aliases = Aliases()
        self.roles = Roles(defaults)
        self._found = Found()
        self._direct = Direct(defaults.strategy, defaults.allow_hosted, self._weigh)
        self._expected: dict[str, int] = {}
        # What names took from others, and the reverse.
        self._taken: dict[str, frozenset[str]] = {}
        self._takers: dict[str, set[str]] = {}
        # How many endpoints serve each operation at all.
        self._operations: Counter[Operation] = Counter()
        # Names whose routes are to be compiled.
        self.stale: set[str] = set()
        # What `compile` went through: what it cost.
        self.compiled = 0
        self._groups: dict[Facts, list[str]] | None = None
        self._meanings: dict[str, Meanings] = {}

    # What changes.

    def service(self, name: str) -> None:
        """It came, went, or has other operations."""
        self.stale.add(name)

    def moved(self, moves: Iterable[Moved]) -> None:
        scored = self._defaults.strategy is Strategy.SCORED
        for move in moves:
            before, now = move.before, move.now
            other = move.asset is None or move.asset_before is None or move.asset.asset_id != move.asset_before.asset_id
            if other or (scored and before is not now) or not _alike(before, now):
                self.stale.add(move.service)
                self.stale |= {asset.asset_id for asset in (move.asset, move.asset_before) if asset is not None}
            if other or before is not now:
                self._merits.reweigh(move.endpoint)
            if move.asset is None:
                self._merits.drop(move.endpoint)
            elif self._merits.hint(move.endpoint, move.service, move.asset.asset_id):
                self._reconsider(move.endpoint)
            if move.asset_before is not None and before is not None and not before.hosted:
                self._found.drop(move.asset_before)
            if move.asset is not None and now is not None and not now.hosted:
                self._found.add(move.asset)
            if before is not now:
                self._count(before, now)
                self.stale |= self.roles.moved(before, now)

    def _count(self, before: Facts | None, now: Facts | None) -> None:
        for facts, step in ((before, -1), (now, 1)):
            for operation in () if facts is None else facts.operations:
                self._operations[operation] += step
                if self._operations[operation] == max(0, step):
                    # Nobody had it, or nobody has it any more.
                    self.stale |= self.roles.covering(operation)

    def set_profiles(self, roles: Mapping[str, Role], aliases: Mapping[str, Alias]) -> None:
        self._merits.reweigh_all()
        self.stale |= self.roles.replace(roles)
        self.stale |= self.aliases.replace(aliases, self._known)

    def put_expected(self, model: str, tokens: int | None) -> None:
        if self._expected.get(model) == tokens:
            return
        if tokens is None:
            del self._expected[model]
        else:
            self._expected[model] = tokens
        self.stale.add(model)

    def figures(self, endpoint: str, *, hinted: bool) -> None:
        """Other things are known of how well it does. hinted: its hint is another."""
        if hinted:
            self._reconsider(endpoint)
            return
        if self._defaults.strategy is Strategy.SCORED:
            self._restale(endpoint)
        self.stale |= self.roles.scored()

    def _reconsider(self, endpoint: str) -> None:
        self._restale(endpoint)
        self.stale |= set(self.roles)

    def _restale(self, endpoint: str) -> None:
        asset = self._offers.assets.get(endpoint)
        if asset is not None:
            service = "/".join(endpoint.split("/", 3)[1:3])
            self.stale |= {asset.asset_id, service}

    # What is asked.

    def found_aliases(self) -> dict[str, Alias]:
        """Those that are in force."""
        return {alias.alias: alias for alias in self._found.aliases() if self.one(alias.alias)}

    def one(self, name: str) -> tuple[str, ...]:
        """The asset_ids that are one model under this name, if control found it and nothing else has the name."""
        asset_ids = self._found.get(name) if self._defaults.found_names else ()
        if not asset_ids or name in self.roles or name in self._offers.services or self.aliases.of(name) is not None:
            return ()
        return asset_ids if name in asset_ids or name not in self._offers.having else ()

    def kind(self, name: str, operation: Operation) -> NameKind | None:
        """As what a name that is no alias is asked for this operation."""
        return next((claim.kind for claim in self._own(name) if operation in claim.meanings), None)

    def groups(self) -> dict[Facts, list[str]]:
        """All endpoints, by what they are like."""
        found: dict[Facts, list[str]] = {}
        for endpoint, facts in self._offers.members():
            found.setdefault(facts, []).append(endpoint)
        return found

    def _known(self) -> Iterator[str]:
        yield from self._offers.having
        yield from self._offers.services
        yield from self.roles
        yield from self.aliases
        yield from (alias.alias for alias in self._found.aliases())

    # Routes.

    def compile(self) -> Iterator[tuple[str, Route | None]]:
        """Names with their routes. None: there is nothing of this name."""
        self.compiled = 0
        self.stale |= self._found.settle()
        self.stale |= {taker for name in self.stale for taker in self._takers.get(name, ())}
        stale, self.stale = self.stale, set()
        for name in stale:
            yield name, self._route(name)
        self._groups = None
        self._meanings.clear()

    def _route(self, name: str) -> Route | None:
        own = self._own(name)
        service, role = self._offers.services.get(name), self.roles.get(name)
        alias = self.aliases.of(name)
        claims: list[Claim] = []
        taken: frozenset[str] = frozenset()
        otherwise = []
        if alias is not None and (alias.alias == name or own or service is not None):
            taken = frozenset({alias.target})
            claims.append(Claim(kind=NameKind.ALIAS, meanings=self._meaning(alias.target), target=alias.target))
            if alias.alias == name:
                otherwise.append(compiling.no_target(alias.target))
        elif alias is None and (asset_ids := self.one(name)):
            taken = frozenset(asset_ids)
            meanings = self._direct.of_asset(name, self._local(asset_ids))
            claims.append(Claim(kind=NameKind.ALIAS, meanings=meanings, target=", ".join(asset_ids), hides=False))
        if service is not None and not service.assets:
            otherwise.append(compiling.no_model(service))
        self._take(name, taken)
        made = compiling.route(name, [*claims, *own], otherwise[:1], self._expected.get(name))
        if made is None:
            return None
        self._count_cost(made)
        shown = role if role is not None and any(b.kind is NameKind.ROLE for b in made.branches) else None
        return msgspec.structs.replace(
            made,
            glob=alias is not None and alias.alias == name and alias.glob,
            display_name="" if shown is None else shown.display_name,
            description="" if shown is None else shown.description,
            offload_hint=self._hint(made),
        )

    def _own(self, name: str) -> list[Claim]:
        """What a name means if no alias has a say."""
        claims: list[Claim] = []
        if (having := self._offers.having.get(name)) is not None:
            self.compiled += len(having)
            claims.append(Claim(kind=NameKind.ASSET, meanings=self._direct.of_asset(name, having.items())))
        if (service := self._offers.services.get(name)) is not None:
            meanings = self._direct.of_service(service, self._offers.facts)
            claims.append(Claim(kind=NameKind.SERVICE, meanings=meanings))
        if name in self.roles:
            meanings = compiling.of_role(self.roles, name, self._grouped(), self._weigh)
            self.roles.note(name, empty=any(not meaning.tiers for meaning in meanings.values()))
            claims.append(Claim(kind=NameKind.ROLE, meanings=meanings))
        return claims

    def _meaning(self, target: str) -> Meanings:
        """What an alias of it means; made once for all of them."""
        found = self._meanings.get(target)
        if found is None:
            found = self._meanings[target] = compiling.together(self._own(target))
        return found

    def _local(self, asset_ids: Iterable[str]) -> Iterator[tuple[str, Facts]]:
        for asset_id in asset_ids:
            for endpoint, facts in self._offers.having.get(asset_id, {}).items():
                if not facts.hosted:
                    yield endpoint, facts

    def _grouped(self) -> dict[Facts, list[str]]:
        """The same for all that is compiled together."""
        if self._groups is None:
            self._groups = self.groups()
        return self._groups

    def _weigh(self, endpoint: str, facts: Facts, role: Role | None = None) -> TierEndpoint:
        return self._merits.weigh(endpoint, self._offers.assets[endpoint].asset_id, facts, role)

    def _hint(self, route: Route) -> OffloadHint | None:
        """Of whom chats go to first."""
        if not self._merits.hints:
            return None
        for branch in route.branches:
            if Operation.CHAT in branch.operations and branch.tiers:
                return scoring.best_hint(self._merits.hints, (e.endpoint for e in branch.tiers[0].endpoints))
        return None

    def _count_cost(self, route: Route) -> None:
        for branch in route.branches:
            if branch.kind in (NameKind.ALIAS, NameKind.ROLE):
                self.compiled += sum(len(tier.endpoints) for tier in branch.tiers) // _CHEAPER

    def _take(self, name: str, taken: frozenset[str]) -> None:
        before = self._taken.get(name, frozenset())
        for other in before - taken:
            self._takers[other].discard(name)
            if not self._takers[other]:
                del self._takers[other]
        for other in taken - before:
            self._takers.setdefault(other, set()).add(name)
        if taken:
            self._taken[name] = taken
        else:
            self._taken.pop(name, None)


def _alike(before: Facts | None, now: Facts | None) -> bool:
    """Whether a name that has this endpoint means the same as before."""
    if before is now or before is None or now is None:
        return before is now
    return before.operations == now.operations and before.hosted == now.hosted
