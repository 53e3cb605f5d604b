"""The routing table: resources with their versions, recompiled by service and by name as they change."""

import hashlib
from collections.abc import Iterator, Mapping

import msgspec

from geniehive.rules import names
from geniehive.rules.model import (
    ClientKey,
    Content,
    Endpoint,
    Relay,
    Resource,
    Service,
    Upstream,
)
from geniehive_control.core import compile as compiling

_encoder = msgspec.msgpack.Encoder()


def version(content: Content) -> str:
    """A hash of the contents: equal versions mean equal contents, whichever process compiled them."""
    return hashlib.blake2b(_encoder.encode(content), digest_size=8).hexdigest()


class Table:
    """Every change gives the names of the resources that became other than they were.

    Routes that a change makes stale are compiled by `compile`, which can wait: a name that a thousand hosts have, and
    that changes with each of them, need not be compiled a thousand times.
    """

    def __init__(self) -> None:
        self._resources: dict[str, Resource] = {}
        self._services: dict[str, Service] = {}
        # asset_id -> what services have under it, by service.
        self._having: dict[str, dict[str, compiling.Offers]] = {}
        # Names whose routes are to be compiled.
        self._stale: set[str] = set()
        # How many offers the last `compile` went through: what it cost.
        self.compiled = 0

    def __len__(self) -> int:
        return len(self._resources)

    def __iter__(self) -> Iterator[str]:
        return iter(self._resources)

    def get(self, name: str) -> Resource | None:
        return self._resources.get(name)

    @property
    def resources(self) -> Mapping[str, Resource]:
        return self._resources

    @property
    def stale(self) -> bool:
        """Whether there are routes to compile."""
        return bool(self._stale)

    def put_service(self, service: Service) -> set[str]:
        """A service that is new, or offers something else."""
        before = self._services.get(service.service)
        if before == service:
            return set()
        self._services[service.service] = service
        changed: set[str] = set()
        gone, come = () if before is None else compiling.endpoints(before), compiling.endpoints(service)
        for name in set(gone) - set(come):
            changed |= self._drop(name)
        for name, asset in zip(come, service.assets, strict=True):
            changed |= self._put(name, Endpoint(service=service.service, asset=asset))
        self._offer(service.service, before, compiling.offers(service, come))
        if before is None or before.operations != service.operations:
            self._stale.add(service.service)
        return changed

    def drop_service(self, name: str) -> set[str]:
        before = self._services.pop(name, None)
        if before is None:
            return set()
        changed = self._drop(names.upstream_resource(name))
        for endpoint in compiling.endpoints(before):
            changed |= self._drop(endpoint)
        self._offer(name, before, {})
        self._stale.add(name)
        return changed

    def compile(self) -> set[str]:
        """Brings routes up to date."""
        changed: set[str] = set()
        self.compiled = 0
        for model in self._stale:
            having = self._having.get(model, {}).values()
            self.compiled += len(having)
            route = compiling.route(model, having, self._services.get(model))
            name = names.route_resource(model)
            changed |= self._drop(name) if route is None else self._put(name, route)
        self._stale = set()
        return changed

    def _offer(self, service: str, before: Service | None, offers: Mapping[str, compiling.Offers]) -> None:
        """What `service` has now, in place of what it had."""
        had = () if before is None else (asset.asset_id for asset in before.assets)
        for asset_id in {*had, *offers}:
            having = self._having.setdefault(asset_id, {})
            offered = offers.get(asset_id)
            if having.get(service) == offered:
                continue
            self._stale |= {asset_id, service}
            if offered is not None:
                having[service] = offered
                continue
            del having[service]
            if not having:
                del self._having[asset_id]

    def put_upstream(self, upstream: Upstream) -> set[str]:
        return self._put(names.upstream_resource(upstream.service), upstream)

    def put_relay(self, host_id: str, relay: Relay | None) -> set[str]:
        """None: the host has no relay."""
        name = names.relay_resource(host_id)
        return self._drop(name) if relay is None else self._put(name, relay)

    def put_key(self, key: ClientKey) -> set[str]:
        return self._put(names.key_resource(key.key_id), key)

    def drop_key(self, key_id: str) -> set[str]:
        return self._drop(names.key_resource(key_id))

    def _put(self, name: str, content: Content) -> set[str]:
        held = self._resources.get(name)
        if held is not None and held.content == content:
            return set()
        self._resources[name] = Resource(name=name, version=version(content), content=content)
        return {name}

    def _drop(self, name: str) -> set[str]:
        return set() if self._resources.pop(name, None) is None else {name}
