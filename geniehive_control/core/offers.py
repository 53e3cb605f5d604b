"""What services offer: each model of each as an endpoint, with the facts that routes depend on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from geniehive.rules import names
from geniehive.rules.model import Asset, Host, Service
from geniehive_control.core.facts import Facts, Known, Machine, machine, shaped

_NOWHERE = Machine()


class Moved(NamedTuple):
    """An endpoint that is other than it was. None: it was not there, or is not."""

    endpoint: str
    service: str
    asset_before: Asset | None
    before: Facts | None
    asset: Asset | None
    now: Facts | None


class Offers:
    """thinking_off: whether requests to some local models are told not to think."""

    def __init__(self, *, thinking_off: bool) -> None:
        self.services: dict[str, Service] = {}
        # By endpoint. Machines that are alike share them.
        self.assets: dict[str, Asset] = {}
        # By asset_id: the endpoints that have it.
        self.having: dict[str, dict[str, Facts]] = {}
        self._machines: dict[str, Machine] = {}
        self._known = Known()
        self._thinking_off = thinking_off

    def facts(self, endpoint: str) -> Facts:
        """KeyError if there is no such endpoint."""
        return self.having[self.assets[endpoint].asset_id][endpoint]

    def members(self) -> Iterator[tuple[str, Facts]]:
        """All endpoints."""
        for having in self.having.values():
            yield from having.items()

    def endpoints_of(self, name: str) -> Iterable[str]:
        """Of a service."""
        service = self.services.get(name)
        return () if service is None else endpoints(service)

    def put(self, service: Service) -> list[Moved]:
        """A service that is new, or offers something else."""
        before = self.services.get(service.service)
        self.services[service.service] = service
        return self._move(service.service, before, service)

    def drop(self, name: str) -> list[Moved]:
        before = self.services.pop(name, None)
        return [] if before is None else self._move(name, before, None)

    def put_host(self, host: Host) -> list[Moved]:
        """What roles may ask of the machine itself. Best told before its services are."""
        now = machine(host)
        if self._machines.get(host.host_id, _NOWHERE) == now:
            return []
        self._machines[host.host_id] = now
        prefix = names.join_service(host.host_id, "")
        here = [service for name, service in self.services.items() if name.startswith(prefix)]
        return [moved for service in here for moved in self._move(service.service, service, service)]

    def drop_host(self, host_id: str) -> None:
        self._machines.pop(host_id, None)

    def _move(self, name: str, before: Service | None, service: Service | None) -> list[Moved]:
        had = {} if before is None else endpoints(before)
        has: Mapping[str, Asset] = {} if service is None else endpoints(service)
        found = self._machines.get(name.partition("/")[0], _NOWHERE)
        moves = []
        alike = before is not service and before is not None and service is not None and _alike(before, service)
        for endpoint in had.keys() | has.keys():
            if alike and had.get(endpoint) == has.get(endpoint):
                continue
            asset_before, facts_before = self._take(endpoint)
            asset = facts = None
            if service is not None and (offered := has.get(endpoint)) is not None:
                facts = self._known.of(service, offered, found)
                asset = shaped(offered, facts, service.runtime) if self._thinking_off else offered
                self.assets[endpoint] = asset
                self.having.setdefault(asset.asset_id, {})[endpoint] = facts
            if asset != asset_before or facts is not facts_before:
                moves.append(Moved(endpoint, name, asset_before, facts_before, asset, facts))
        return moves

    def _take(self, endpoint: str) -> tuple[Asset | None, Facts | None]:
        asset = self.assets.pop(endpoint, None)
        if asset is None:
            return None, None
        having = self.having[asset.asset_id]
        facts = having.pop(endpoint)
        if not having:
            del self.having[asset.asset_id]
        return asset, facts


def endpoints(service: Service) -> dict[str, Asset]:
    """Its assets by their resources, in their order."""
    return {names.endpoint_resource(service.service, asset.upstream_name): asset for asset in service.assets}


def _alike(before: Service, now: Service) -> bool:
    """But for its models."""
    return (before.operations, before.hosted, before.runtime, before.labels) == (
        now.operations,
        now.hosted,
        now.runtime,
        now.labels,
    )
