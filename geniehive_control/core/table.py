"""The routing table: resources with their versions, recompiled by service and by name as they change."""

import hashlib
from collections.abc import Iterator

import msgspec

from geniehive.rules import names
from geniehive.rules.model import (
    Asset,
    ClientKey,
    Content,
    Endpoint,
    Relay,
    Resource,
    Route,
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
    that changes with each of them, need not be compiled a thousand times. A version is made when it is asked for.
    """

    def __init__(self) -> None:
        # All but endpoints.
        self._contents: dict[str, Content] = {}
        # Of endpoints, which are most of it, the assets alone, which machines that are alike share.
        self._assets: dict[str, Asset] = {}
        # Those that were asked for.
        self._versions: dict[str, str] = {}
        self._services: dict[str, Service] = {}
        # asset_id -> the endpoints that have it, and their services.
        self._having: dict[str, dict[str, str]] = {}
        # Names whose routes are to be compiled.
        self._stale: set[str] = set()
        # How many offers the last `compile` went through: what it cost.
        self.compiled = 0

    def __len__(self) -> int:
        return len(self._contents) + len(self._assets)

    def __contains__(self, name: object) -> bool:
        return name in self._contents or name in self._assets

    def __iter__(self) -> Iterator[str]:
        yield from self._contents
        yield from self._assets

    def get(self, name: str) -> Resource | None:
        content, version = self.content(name), self.version(name)
        return None if content is None or version is None else Resource(name=name, version=version, content=content)

    def content(self, name: str) -> Content | None:
        asset = self._assets.get(name)
        if asset is None:
            return self._contents.get(name)
        return Endpoint(service=self._having[asset.asset_id][name], asset=asset)

    def version(self, name: str) -> str | None:
        """None: there is no such resource."""
        found = self._versions.get(name)
        if found is None and (content := self.content(name)) is not None:
            found = self._versions[name] = version(content)
        return found

    def routes(self) -> Iterator[Route]:
        return (content for content in self._contents.values() if isinstance(content, Route))

    def upstreams(self) -> Iterator[Upstream]:
        return (content for content in self._contents.values() if isinstance(content, Upstream))

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
        if before is None or before.operations != service.operations:
            self._stale.add(service.service)
        return self._offer(service.service, before, service)

    def drop_service(self, name: str) -> set[str]:
        before = self._services.pop(name, None)
        if before is None:
            return set()
        self._stale.add(name)
        return self._drop(names.upstream_resource(name)) | self._offer(name, before, None)

    def compile(self) -> set[str]:
        """Brings routes up to date."""
        changed: set[str] = set()
        self.compiled = 0
        for model in self._stale:
            having = [
                compiling.offer(self._services[service], self._assets[endpoint], endpoint)
                for endpoint, service in self._having.get(model, {}).items()
            ]
            self.compiled += len(having)
            route = compiling.route(model, having, self._services.get(model))
            name = names.route_resource(model)
            changed |= self._drop(name) if route is None else self._put(name, route)
        self._stale = set()
        return changed

    def _offer(self, name: str, before: Service | None, service: Service | None) -> set[str]:
        """What the service `name` has now, in place of what it had."""
        had = {} if before is None else compiling.endpoints(before)
        has = {} if service is None else compiling.endpoints(service)
        if before is not None and service is not None:
            others = compiling.differing(before, service)
        else:
            others = {asset.asset_id for asset in (had or has).values()}
        if others:
            self._stale |= others
            self._stale.add(name)
        changed = {endpoint for endpoint in had.keys() | has.keys() if had.get(endpoint) != has.get(endpoint)}
        for endpoint in changed:
            self._versions.pop(endpoint, None)
            if (asset := self._assets.pop(endpoint, None)) is not None:
                having = self._having[asset.asset_id]
                del having[endpoint]
                if not having:
                    del self._having[asset.asset_id]
            if (asset := has.get(endpoint)) is not None:
                self._assets[endpoint] = asset
                self._having.setdefault(asset.asset_id, {})[endpoint] = name
        return changed

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
        if self._contents.get(name) == content:
            return set()
        self._contents[name] = content
        self._versions.pop(name, None)
        return {name}

    def _drop(self, name: str) -> set[str]:
        self._versions.pop(name, None)
        return set() if self._contents.pop(name, None) is None else {name}
