"""Hosts and services -> resources of the routing table.

A name is looked up among kinds in order of precedence (NameKind); an operation of a name belongs to the first kind that
has the name and covers it. Endpoints that cannot be used now stay in their tiers: a service that goes down changes one
small resource, its upstream, and not its models' routes.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from geniehive.rules import names
from geniehive.rules.model import Asset, Branch, Gate, NameKind, Route, RuledOut, Service, Strategy, Tier, TierEndpoint
from geniehive.rules.operations import Operation

# What a name means for each operation: the endpoints, or the names to choose from.
_Meaning = tuple[tuple[str, ...], tuple[str, ...]]


class Offer(NamedTuple):
    """What one service has under one name, as far as routes depend on it: not whether it is in memory, say."""

    hosted: bool
    # Each with its operations.
    endpoints: tuple[tuple[str, tuple[Operation, ...]], ...]


def offers(service: Service) -> dict[str, Offer]:
    """By asset_id."""
    found: dict[str, list[tuple[str, tuple[Operation, ...]]]] = {}
    for asset in service.assets:
        endpoint = names.endpoint_resource(service.service, asset.upstream_name)
        found.setdefault(asset.asset_id, []).append((endpoint, service.operations_of(asset)))
    return {asset_id: Offer(service.hosted, tuple(endpoints)) for asset_id, endpoints in found.items()}


def route(model: str, having: Iterable[Offer], own: Service | None) -> Route | None:
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


def _of_asset(having: Iterable[Offer]) -> dict[Operation, _Meaning]:
    local: dict[Operation, list[str]] = {}
    hosted: dict[Operation, list[str]] = {}
    for offer in having:
        found = hosted if offer.hosted else local
        for endpoint, operations in offer.endpoints:
            for operation in operations:
                found.setdefault(operation, []).append(endpoint)
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
