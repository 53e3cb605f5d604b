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


def endpoints(service: Service) -> dict[str, Asset]:
    """Its assets by their resources, in their order."""
    return {names.endpoint_resource(service.service, asset.upstream_name): asset for asset in service.assets}


def offer(service: Service, asset: Asset, endpoint: str) -> Offer:
    """endpoint: the resource of `asset`, as `endpoints` gives it."""
    return Offer(endpoint=endpoint, operations=service.operations_of(asset), hosted=service.hosted)


def differing(before: Service, now: Service) -> set[str]:
    """The asset_ids under which a service has something else than it had, as far as routes depend on it."""
    had, has = _offers(before), _offers(now)
    return {asset_id for asset_id in had.keys() | has.keys() if had.get(asset_id) != has.get(asset_id)}


def _offers(service: Service) -> dict[str, list[Offer]]:
    found: dict[str, list[Offer]] = {}
    for endpoint, asset in endpoints(service).items():
        found.setdefault(asset.asset_id, []).append(offer(service, asset, endpoint))
    return found


def route(model: str, having: Iterable[Offer], own: Service | None) -> Route | None:
    """What `model` means; None if nothing has this name.

    having: the models that have this asset_id.
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


def _of_asset(having: Iterable[Offer]) -> dict[Operation, _Meaning]:
    local: dict[Operation, list[str]] = {}
    hosted: dict[Operation, list[str]] = {}
    for offer in having:
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
