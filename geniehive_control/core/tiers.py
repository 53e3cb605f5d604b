"""Roles -> tiers: who passes their gates, in which order, with their fallbacks."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from geniehive.rules.model import Role, Strategy, Tier, TierEndpoint
from geniehive.rules.operations import Operation
from geniehive_control.core import gates, scoring
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.facts import Facts
from geniehive_control.core.gates import Stopped

# What a role for chat covers too, on services that serve it.
_LIKE_CHAT = frozenset({Operation.RESPONSES, Operation.MESSAGES})
# Judgements of facts that no endpoint has any more are dropped when there are so many.
_MOST_JUDGED = 20_000

# endpoints by their facts, sorted.
Groups = Mapping[Facts, Collection[str]]


def covers(role: Role, operation: Operation) -> bool:
    return operation is role.operation or (role.operation is Operation.CHAT and operation in _LIKE_CHAT)


class Link(NamedTuple):
    """A role in a chain of fallbacks. label: the way to it. hosted: whether providers outside may serve it."""

    role: Role
    label: str
    hosted: bool


class Place(NamedTuple):
    """A tier, before it has endpoints: whose it is, and what those in it are like."""

    link: Link
    rank: int
    facts: list[Facts]


def chain(role: Role, roles: Mapping[str, Role], allow_hosted: bool) -> tuple[Link, ...]:
    """A role and its fallbacks, in the order in which they are tried: all of one role, then theirs. Each once.

    A role that says that no provider outside may serve says so for whoever takes its place, too.
    """
    first = role.routing_policy.allow_hosted
    found = {role.role_id: Link(role, role.role_id, allow_hosted if first is None else first)}
    local = {role.role_id} if first is False else set()
    ahead = [role.role_id]
    for role_id in ahead:
        link = found[role_id]
        for following in link.role.routing_policy.fallback_role_ids:
            other = roles.get(following)
            if other is None or following in found:
                continue
            own = other.routing_policy.allow_hosted
            if role_id in local or own is False:
                local.add(following)
            hosted = (allow_hosted if own is None else own) and following not in local
            found[following] = Link(other, f"{link.label}>{following}", hosted)
            ahead.append(following)
    return tuple(found.values())


class Roles:
    """All roles, with what they think of endpoints."""

    def __init__(self, defaults: RoutingDefaults) -> None:
        self._defaults = defaults
        self._roles: dict[str, Role] = {}
        self._chains: dict[str, tuple[Link, ...]] = {}
        # By role: those whose chains it is in.
        self._used_by: dict[str, set[str]] = {}
        # By role and facts: its rank, or the gate that stops it, hosted apart.
        self._judged: dict[tuple[str, Facts], int | Stopped] = {}
        # Those that nobody can serve for some operation: why not changes with whoever is there.
        self._empty: set[str] = set()

    def __contains__(self, role_id: object) -> bool:
        return role_id in self._roles

    def __iter__(self) -> Iterator[str]:
        return iter(self._roles)

    def __len__(self) -> int:
        return len(self._roles)

    def all(self) -> Iterable[Role]:
        return self._roles.values()

    def covering(self, operation: Operation) -> set[str]:
        return {role.role_id for role in self._roles.values() if covers(role, operation)}

    def get(self, role_id: str) -> Role | None:
        return self._roles.get(role_id)

    def replace(self, roles: Mapping[str, Role]) -> set[str]:
        """In place of those before. The roles that are other than they were, or that are gone."""
        changed = {name for name in roles.keys() | self._roles.keys() if roles.get(name) != self._roles.get(name)}
        stale = changed | {user for name in changed for user in self._used_by.get(name, ())}
        self._roles = dict(roles)
        self._chains = {name: chain(role, roles, self._defaults.allow_hosted) for name, role in roles.items()}
        self._used_by = {}
        for name, links in self._chains.items():
            for link in links:
                self._used_by.setdefault(link.role.role_id, set()).add(name)
        self._judged.clear()
        self._empty &= self._roles.keys()
        return stale | {user for name in changed for user in self._used_by.get(name, ())}

    def strategy(self, role: Role) -> Strategy:
        return role.routing_policy.strategy or self._defaults.strategy

    def judge(self, role: Role, facts: Facts) -> int | Stopped:
        """The rank of its family, or the gate that stops it. Operations and providers are for the caller to ask."""
        key = (role.role_id, facts)
        found = self._judged.get(key)
        if found is None:
            if len(self._judged) > _MOST_JUDGED:
                self._judged.clear()
            policy = role.routing_policy
            stopped = gates.demands(facts, policy)
            found = self._judged[key] = scoring.rank(policy, facts) if stopped is None else stopped
        return found

    def moved(self, before: Facts | None, now: Facts | None) -> set[str]:
        """The roles whose tiers are others, now that an endpoint is like this."""
        stale: set[str] = set()
        for role in self._roles.values():
            if role.role_id not in stale and self._sign(role, before) != self._sign(role, now):
                stale |= self._used_by[role.role_id]
        return stale | self._empty

    def _sign(self, role: Role, facts: Facts | None) -> tuple[object, ...] | None:
        """What a role's tiers depend on."""
        if facts is None:
            return None
        covered = [operation for operation in facts.operations if covers(role, operation)]
        if not covered or isinstance(rank := self.judge(role, facts), Stopped):
            return None
        return (facts,) if self.strategy(role) is Strategy.SCORED else (rank, facts.hosted, *covered)

    def scored(self) -> set[str]:
        """Those that have tiers with weights."""
        found: set[str] = set()
        for role in self._roles.values():
            if self.strategy(role) is Strategy.SCORED:
                found |= self._used_by[role.role_id]
        return found

    def operations(self, role: Role, kinds: Iterable[Facts]) -> list[Operation]:
        """What a name of this role can be asked: its own operation, and what is like it if anybody has that at all."""
        found = {role.operation}
        for facts in kinds:
            found |= {operation for operation in facts.operations if covers(role, operation)}
        return sorted(found)

    def note(self, role_id: str, *, empty: bool) -> None:
        """Whether there is an operation of it that nobody can serve now."""
        if empty:
            self._empty.add(role_id)
        else:
            self._empty.discard(role_id)

    def places(self, role: Role, operation: Operation, kinds: Iterable[Facts]) -> list[Place]:
        """In the order of the tiers. An endpoint stands in the first that takes it."""
        left = [facts for facts in kinds if operation in facts.operations]
        found: list[Place] = []
        for link in self._chains[role.role_id]:
            if not covers(link.role, operation):
                continue
            ranks: dict[int, list[Facts]] = {}
            others: list[Facts] = []
            for facts in left:
                rank = self.judge(link.role, facts)
                if isinstance(rank, Stopped) or (facts.hosted and not link.hosted):
                    others.append(facts)
                else:
                    ranks.setdefault(rank, []).append(facts)
            found += [Place(link, rank, ranks[rank]) for rank in sorted(ranks)]
            left = others
        return found

    def stopped(self, role: Role, operation: Operation, facts: Facts) -> Stopped | None:
        """The first gate of the role itself that this does not pass."""
        link = self._chains[role.role_id][0]
        if (found := gates.operation(facts, operation) or gates.hosted(facts, link.hosted)) is not None:
            return found
        judged = self.judge(role, facts)
        return judged if isinstance(judged, Stopped) else None

    def tier(self, place: Place, groups: Groups, weigh: Callable[[str, Facts, Role], TierEndpoint] | None) -> Tier:
        """weigh: gives an endpoint with its weight."""
        role, strategy = place.link.role, self.strategy(place.link.role)
        if weigh is not None and strategy is Strategy.SCORED:
            members = [weigh(endpoint, facts, role) for facts in place.facts for endpoint in groups[facts]]
            members.sort(key=lambda member: member.endpoint)
        else:
            found = [endpoint for facts in place.facts for endpoint in groups[facts]]
            members = [TierEndpoint(endpoint=endpoint) for endpoint in sorted(found)]
        return Tier(
            label=place.link.label,
            strategy=strategy,
            request_policy=role.request_policy,
            endpoints=tuple(members),
        )
