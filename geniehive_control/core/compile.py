"""Hosts and services -> resources of the routing table.

A name is looked up among kinds in order of precedence (NameKind); an operation of a name belongs to the first kind that
has the name and covers it. Endpoints that cannot be used now stay in their tiers: a service that goes down changes one
small resource, its upstream, and not its models' routes.
"""

from collections.abc import Iterable, Mapping

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

# What a name means for each operation: the endpoints, or the names to choose from.
_Meaning = tuple[tuple[str, ...], tuple[str, ...]]


class Offer(Value, frozen=True, kw_only=True):
    """A model of one service, as far as routes depend on it: not whether it is in memory, say."""

    endpoint: str
    operations: tuple[Operation, ...]
    hosted: bool


# What one service has under one name.
Offers = tuple[Offer, ...]


def endpoints(service: Service) -> list[str]:
    """The resources of its assets, in their order."""
    return [names.endpoint_resource(service.service, asset.upstream_name) for asset in service.assets]


def offers(service: Service, endpoints: Iterable[str]) -> dict[str, Offers]:
    """By asset_id. endpoints: as the function of this name gives them; here they are many, so they are made once."""
    found: dict[str, Offers] = {}
    for asset, endpoint in zip(service.assets, endpoints, strict=True):
        offer = Offer(endpoint=endpoint, operations=service.operations_of(asset), hosted=service.hosted)
        found[asset.asset_id] = (*found.get(asset.asset_id, ()), offer)
    return found


def route(model: str, having: Iterable[Offers], own: Service | None) -> Route | None:
    """What `model` means; None if nothing has this name.

    having: what services have under this asset_id.
    own: the service of this name.
    """
    branches: list[Branch] = []
    shadows: list[NameKind] = []
    covered: set[Operation] = set()
    # In order of precedence.
    claims: list[tuple[NameKind, Mapping[Operation, _Meaning]]] = [
        (NameKind.ASSET, _of_asset(having)),
        (NameKind.SERVICE, {} if own is None else _of_service(own)),
    ]
    for kind, meanings in claims:
        if covered & meanings.keys():
            shadows.append(kind)
        branches += _branches(model, kind, {o: m for o, m in meanings.items() if o not in covered})
        covered |= meanings.keys()
    if own is not None and not own.assets and not branches:
        branches.append(_nobody(own))
    if not branches and own is None:
        return None
    return Route(model=model, branches=tuple(branches), shadows=tuple(shadows))


def _of_asset(having: Iterable[Offers]) -> dict[Operation, _Meaning]:
    local: dict[Operation, list[str]] = {}
    hosted: dict[Operation, list[str]] = {}
    for offers in having:
        for offer in offers:
            found = hosted if offer.hosted else local
            for operation in offer.operations:
                found.setdefault(operation, []).append(offer.endpoint)
    # A provider outside joins no name that the cluster serves itself: what was local must not leave the house.
    return {o: (tuple(sorted(set(endpoints))), ()) for o, endpoints in (hosted | local).items()}


def _of_service(service: Service) -> dict[Operation, _Meaning]:
    found: dict[Operation, list[Asset]] = {}
    for asset in service.assets:
        for operation in service.operations_of(asset):
            found.setdefault(operation, []).append(asset)
    meanings: dict[Operation, _Meaning] = {}
    for operation, assets in found.items():
        choices = sorted({asset.asset_id for asset in assets})
        if len(choices) > 1:
            meanings[operation] = ((), tuple(choices))
        else:
            endpoints = {names.endpoint_resource(service.service, asset.upstream_name) for asset in assets}
            meanings[operation] = (tuple(sorted(endpoints)), ())
    return meanings


def _branches(model: str, kind: NameKind, meanings: Mapping[Operation, _Meaning]) -> list[Branch]:
    """One branch per meaning, with all operations that have it."""
    operations: dict[_Meaning, list[Operation]] = {}
    for operation in sorted(meanings):
        operations.setdefault(meanings[operation], []).append(operation)
    return [
        Branch(
            operations=tuple(covered),
            kind=kind,
            choose_from=choices,
            tiers=()
            if choices
            else (
                Tier(
                    label=model,
                    strategy=Strategy.ROUND_ROBIN,
                    endpoints=tuple(TierEndpoint(endpoint=endpoint) for endpoint in endpoints),
                ),
            ),
        )
        for (endpoints, choices), covered in operations.items()
    ]


def _nobody(service: Service) -> Branch:
    """A service without models exists all the same: 503, not 404."""
    return Branch(
        operations=tuple(sorted(set(service.operations) or set(Operation))),
        kind=NameKind.SERVICE,
        ruled_out=(RuledOut(endpoint="", gate=Gate.OPERATION, reason=f"{service.service} offers no model now"),),
    )
