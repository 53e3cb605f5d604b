"""Control's part of why: every endpoint that has a name at all, with the gate that ruled it out or its tier."""

from collections.abc import Iterable, Iterator

from geniehive.rules.model import (
    Availability,
    Branch,
    Gate,
    Health,
    NameKind,
    Reason,
    Resource,
    Role,
    Route,
    RuledOut,
    ScoreTerm,
    Upstream,
    Value,
)
from geniehive.rules.names import upstream_resource
from geniehive.rules.operations import Operation
from geniehive_control.core import gates, lookup, scoring
from geniehive_control.core.facts import Facts
from geniehive_control.core.gates import Stopped
from geniehive_control.core.merits import service_of
from geniehive_control.core.table import Table

# Beyond it candidates have no terms: who reads that many asks about fewer.
_MOST_TERMS = 1000


class Candidate(Value, frozen=True, kw_only=True):
    """Either `tier` or `ruled_out` is set."""

    endpoint: str
    tier: int | None = None
    ruled_out: RuledOut | None = None
    score: float = 0.0
    terms: tuple[ScoreTerm, ...] = ()


class Explained(Value, frozen=True, kw_only=True):
    """resources: the route, narrowed to the operation, and all that it leads to."""

    route: Route
    candidates: tuple[Candidate, ...]
    resources: tuple[Resource, ...]


def explain(table: Table, model: str, operation: Operation) -> Explained:
    """Refusal: ROUTE_NOT_FOUND, OPERATION_NOT_SERVED, NAME_AMBIGUOUS."""
    resources = lookup.resolve(table, model, operation, with_relays=False)
    route = resources[0].content
    assert isinstance(route, Route)
    (branch,) = route.branches
    candidates = sorted(_candidates(table, route.model, branch, operation), key=_order)
    return Explained(route=route, candidates=tuple(candidates), resources=tuple(resources[1:]))


def _order(candidate: Candidate) -> tuple[bool, int, float, str]:
    """As they would be asked, if weights alone decided; then who is ruled out, by gate."""
    if candidate.ruled_out is not None:
        return True, candidate.ruled_out.gate, 0.0, candidate.endpoint
    return False, candidate.tier or 0, -candidate.score, candidate.endpoint


def _candidates(table: Table, model: str, branch: Branch, operation: Operation) -> Iterator[Candidate]:
    subjects = _subjects(table, model, branch)
    kind = table.naming.kind(subjects[0], operation)
    placed: set[str] = set()
    count = 0
    for index, tier in enumerate(branch.tiers):
        role = table.naming.roles.get(tier.label.rpartition(">")[2]) if kind is NameKind.ROLE else None
        for member in tier.endpoints:
            placed.add(member.endpoint)
            if (stopped := _away(table, member.endpoint)) is not None:
                yield _ruled_out(member.endpoint, stopped)
                continue
            count += 1
            terms = _terms(table, member.endpoint, role) if count <= _MOST_TERMS else ()
            yield Candidate(endpoint=member.endpoint, tier=index, score=scoring.score(terms), terms=terms)
    for name in subjects:
        role = table.naming.roles.get(name) if kind is NameKind.ROLE else None
        for endpoint, facts in _having(table, name, kind):
            if endpoint not in placed:
                placed.add(endpoint)
                yield _ruled_out(endpoint, _why(table, endpoint, facts, role, operation))


def _terms(table: Table, endpoint: str, role: Role | None) -> tuple[ScoreTerm, ...]:
    offers = table.offers
    return table.merits.terms(endpoint, offers.assets[endpoint].asset_id, offers.facts(endpoint), role)


def _subjects(table: Table, model: str, branch: Branch) -> tuple[str, ...]:
    """The names whose endpoints a name has."""
    if branch.kind is not NameKind.ALIAS:
        return (model,)
    return table.naming.one(model) or (branch.target,)


def _having(table: Table, name: str, kind: NameKind | None) -> Iterable[tuple[str, Facts]]:
    """All that this name, which is no alias, stands for as a thing of this kind."""
    offers = table.offers
    match kind:
        case NameKind.ASSET:
            return offers.having.get(name, {}).items()
        case NameKind.SERVICE:
            return ((endpoint, offers.facts(endpoint)) for endpoint in offers.endpoints_of(name))
        case NameKind.ROLE:
            return offers.members()
    return ()


def _why(table: Table, endpoint: str, facts: Facts, role: Role | None, operation: Operation) -> Stopped:
    """The first gate that an endpoint of no tier does not pass, in the order of the gates."""
    if (stopped := gates.operation(facts, operation) or _away(table, endpoint)) is not None:
        return stopped
    if role is not None and (stopped := table.naming.roles.stopped(role, operation, facts)) is not None:
        return stopped
    return gates.joins_nothing()


def _away(table: Table, endpoint: str) -> Stopped | None:
    upstream = table.content(upstream_resource(service_of(endpoint)))
    if not isinstance(upstream, Upstream):
        return Stopped(Gate.HEALTH, "its service is gone")
    if upstream.routable:
        return None
    condition = upstream.condition
    why = condition.detail or condition.reason.name.lower().replace("_", " ")
    if condition.health is Health.UNHEALTHY or condition.reason is Reason.UNREACHABLE:
        return Stopped(Gate.HEALTH, why)
    if condition.availability is Availability.PAUSED and condition.reason is Reason.OPERATOR:
        return Stopped(Gate.ACCEPT_REQUESTS, why)
    return Stopped(Gate.AVAILABILITY, f"{condition.availability.name.lower()}: {why}")


def _ruled_out(endpoint: str, stopped: Stopped) -> Candidate:
    return Candidate(endpoint=endpoint, ruled_out=RuledOut(endpoint=endpoint, gate=stopped.gate, reason=stopped.reason))
