"""What a name means, as a route.

A name is looked up among kinds in order of precedence (NameKind); an operation of a name belongs to the first kind that
has the name and covers it. Endpoints that cannot be used now stay in their tiers: a service that goes down changes one
small resource, its upstream, and not its models' routes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from geniehive.rules import names
from geniehive.rules.model import (
    Asset,
    Branch,
    Gate,
    NameKind,
    Route,
    RuledOut,
    Service,
    Strategy,
    Tier,
    TierEndpoint,
    Value,
)
from geniehive.rules.operations import Operation
from geniehive_control.core.facts import Facts
from geniehive_control.core.tiers import Groups, Roles

# Those whose answers have a length that can be learned.
_WRITING = frozenset({Operation.CHAT, Operation.COMPLETIONS, Operation.RESPONSES, Operation.MESSAGES})
# A message to a client can't be longer anyway.
_MOST_RULED_OUT = 50

# An endpoint and what it is like.
Member = tuple[str, Facts]
Weigh = Callable[[str, Facts], TierEndpoint]


class Meaning(Value, frozen=True, kw_only=True):
    """Of a name for one operation."""

    tiers: tuple[Tier, ...] = ()
    choose_from: tuple[str, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()


Meanings = Mapping[Operation, Meaning]


class Claim(Value, frozen=True, kw_only=True):
    """What a name means as a thing of one kind. target: of an alias. hides: false if it takes in what it shadows."""

    kind: NameKind
    meanings: Meanings
    target: str = ""
    hides: bool = True


class Direct:
    """How names are compiled that are no roles. weigh: gives endpoints their weights; None: nobody asks for them."""

    def __init__(self, strategy: Strategy, allow_hosted: bool, weigh: Weigh | None = None) -> None:
        self._strategy = strategy
        self._allow_hosted = allow_hosted
        self._weigh = weigh if strategy is Strategy.SCORED else None

    def of_asset(self, label: str, having: Iterable[Member]) -> Meanings:
        """having: the endpoints that have this model."""
        local: dict[Operation, list[Member]] = {}
        hosted: dict[Operation, list[Member]] = {}
        for member in having:
            found = hosted if member[1].hosted else local
            for operation in member[1].operations:
                found.setdefault(operation, []).append(member)
        meanings: dict[Operation, Meaning] = {}
        for operation in local.keys() | hosted.keys():
            kinds = [local.get(operation, []), hosted.get(operation, [])]
            if kinds[0] and not self._allow_hosted:
                # A provider outside joins no name that the cluster serves itself: what was local must not leave the
                # house. Where it may, it comes after those.
                kinds = kinds[:1]
            meanings[operation] = Meaning(tiers=tuple(self._tier(label, members) for members in kinds if members))
        return meanings

    def of_service(self, service: Service, facts: Callable[[str], Facts]) -> Meanings:
        found: dict[Operation, list[Asset]] = {}
        for asset in service.assets:
            for operation in service.operations_of(asset):
                found.setdefault(operation, []).append(asset)
        meanings: dict[Operation, Meaning] = {}
        for operation, assets in found.items():
            choices = sorted({asset.asset_id for asset in assets})
            if len(choices) > 1:
                meanings[operation] = Meaning(choose_from=tuple(choices))
                continue
            endpoints = {names.endpoint_resource(service.service, asset.upstream_name) for asset in assets}
            members = [(endpoint, facts(endpoint)) for endpoint in endpoints]
            meanings[operation] = Meaning(tiers=(self._tier(service.service, members),))
        return meanings

    def _tier(self, label: str, members: Iterable[Member]) -> Tier:
        listed = sorted({endpoint: facts for endpoint, facts in members}.items())
        if self._weigh is None:
            endpoints = tuple(TierEndpoint(endpoint=endpoint) for endpoint, _ in listed)
        else:
            endpoints = tuple(self._weigh(endpoint, facts) for endpoint, facts in listed)
        return Tier(label=label, strategy=self._strategy, endpoints=endpoints)


def of_role(roles: Roles, role_id: str, groups: Groups, weigh: Callable[..., TierEndpoint] | None) -> Meanings:
    role = roles.get(role_id)
    if role is None:
        return {}
    meanings: dict[Operation, Meaning] = {}
    for operation in roles.operations(role, groups):
        places = roles.places(role, operation, groups)
        tiers = tuple(roles.tier(place, groups, weigh) for place in places)
        ruled_out = () if tiers else _nobody_of(roles, role_id, operation, groups)
        meanings[operation] = Meaning(tiers=tiers, ruled_out=ruled_out)
    return meanings


def _nobody_of(roles: Roles, role_id: str, operation: Operation, groups: Groups) -> tuple[RuledOut, ...]:
    role = roles.get(role_id)
    assert role is not None
    found = []
    for facts, endpoints in groups.items():
        if operation in facts.operations and (stopped := roles.stopped(role, operation, facts)) is not None:
            found += [
                RuledOut(endpoint=endpoint, gate=stopped.gate, reason=stopped.reason)
                for endpoint in sorted(endpoints)[:_MOST_RULED_OUT]
            ]
    if not found:
        reason = f"nothing in the cluster serves {operation.word} now"
        return (RuledOut(endpoint="", gate=Gate.OPERATION, reason=reason),)
    return tuple(sorted(found, key=lambda out: (out.gate, out.endpoint))[:_MOST_RULED_OUT])


def together(claims: Iterable[Claim]) -> Meanings:
    """What a name means as a whole, as whoever leads to it takes it over."""
    found: dict[Operation, Meaning] = {}
    for claim in claims:
        found = {**claim.meanings, **found}
    return found


def route(
    model: str, claims: Sequence[Claim], otherwise: Sequence[Branch] = (), expected: int | None = None
) -> Route | None:
    """What `model` means; None if nothing has this name.

    claims: in order of precedence. otherwise: what is said if none of them has anything. expected: tokens of an answer.
    """
    branches: list[Branch] = []
    shadows: list[NameKind] = []
    covered: set[Operation] = set()
    taken_in = False
    for claim in claims:
        if covered & claim.meanings.keys() and not (taken_in and claim.kind is NameKind.ASSET):
            shadows.append(claim.kind)
        branches += _branches(claim, {o: m for o, m in claim.meanings.items() if o not in covered}, expected)
        covered |= claim.meanings.keys()
        taken_in = taken_in or not claim.hides
    if not branches:
        branches = list(otherwise)
    if not branches:
        return None
    return Route(model=model, branches=tuple(branches), shadows=tuple(shadows))


def _branches(claim: Claim, meanings: Meanings, expected: int | None) -> list[Branch]:
    """One branch per meaning, with all operations that have it."""
    found: list[tuple[Meaning, bool, list[Operation]]] = []
    for operation in sorted(meanings):
        meaning, writes = meanings[operation], operation in _WRITING and expected is not None
        for known, also, operations in found:
            if also == writes and known == meaning:
                operations.append(operation)
                break
        else:
            found.append((meaning, writes, [operation]))
    return [
        Branch(
            operations=tuple(operations),
            kind=claim.kind,
            target=claim.target,
            choose_from=meaning.choose_from,
            tiers=meaning.tiers,
            expected_completion_tokens=expected if writes and meaning.tiers else None,
            ruled_out=meaning.ruled_out,
        )
        for meaning, writes, operations in found
    ]


def no_model(service: Service) -> Branch:
    """A service without models exists all the same: 503, not 404."""
    return Branch(
        operations=tuple(sorted(set(service.operations) or set(Operation))),
        kind=NameKind.SERVICE,
        ruled_out=(RuledOut(endpoint="", gate=Gate.OPERATION, reason=f"{service.service} offers no model now"),),
    )


def no_target(target: str) -> Branch:
    """An alias exists, whatever becomes of what it stands for."""
    reason = f"it stands for {target}, and nothing has that name now"
    return Branch(
        operations=tuple(Operation),
        kind=NameKind.ALIAS,
        target=target,
        ruled_out=(RuledOut(endpoint="", gate=Gate.OPERATION, reason=reason),),
    )
