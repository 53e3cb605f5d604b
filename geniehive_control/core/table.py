"""The routing table: resources with their versions, recompiled by service and by name as they change."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from geniehive.rules import names
from geniehive.rules.model import (
    Alias,
    BenchmarkSample,
    ClientKey,
    Content,
    Endpoint,
    Host,
    Relay,
    Resource,
    Role,
    Route,
    Service,
    Speed,
    Upstream,
)
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.merits import Merits, service_of
from geniehive_control.core.naming import Naming
from geniehive_control.core.offers import Moved, Offers

_encoder = msgspec.msgpack.Encoder()


def version(content: Content) -> str:
    """A hash of the contents: equal versions mean equal contents, whichever process compiled them."""
    return hashlib.blake2b(_encoder.encode(content), digest_size=8).hexdigest()


class Table:
    """Every change gives the names of the resources that became other than they were.

    Routes that a change makes stale are compiled by `compile`, which can wait: a name that a thousand hosts have, and
    that changes with each of them, need not be compiled a thousand times. A version is made when it is asked for.
    """

    def __init__(self, routing: RoutingDefaults | None = None) -> None:
        self.routing = RoutingDefaults() if routing is None else routing
        self.offers = Offers(thinking_off=self.routing.thinking_off)
        self.merits = Merits(self.routing.weights)
        self.naming = Naming(self.routing, self.offers, self.merits)
        # All but endpoints, which are in `offers`.
        self._contents: dict[str, Content] = {}
        # Those that were asked for.
        self._versions: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._contents) + len(self.offers.assets)

    def __contains__(self, name: object) -> bool:
        return name in self._contents or name in self.offers.assets

    def __iter__(self) -> Iterator[str]:
        yield from self._contents
        yield from self.offers.assets

    def get(self, name: str) -> Resource | None:
        content, version = self.content(name), self.version(name)
        return None if content is None or version is None else Resource(name=name, version=version, content=content)

    def content(self, name: str) -> Content | None:
        asset = self.offers.assets.get(name)
        if asset is None:
            return self._contents.get(name)
        return Endpoint(service=service_of(name), asset=asset, speed=self.merits.speed(name))

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
        return bool(self.naming.stale)

    @property
    def compiled(self) -> int:
        """How many offers the last `compile` went through: what it cost."""
        return self.naming.compiled

    def compile(self) -> set[str]:
        """Brings routes up to date."""
        changed: set[str] = set()
        for model, route in self.naming.compile():
            name = names.route_resource(model)
            changed |= self._drop(name) if route is None else self._put(name, route)
        return changed

    # Services and hosts.

    def put_service(self, service: Service) -> set[str]:
        """A service that is new, or offers something else."""
        before = self.offers.services.get(service.service)
        if before == service:
            return set()
        if before is None or before.operations != service.operations:
            self.naming.service(service.service)
        return self._move(self.offers.put(service))

    def drop_service(self, name: str) -> set[str]:
        if name not in self.offers.services:
            return set()
        self.naming.service(name)
        return self._drop(names.upstream_resource(name)) | self._move(self.offers.drop(name))

    def put_host(self, host: Host) -> None:
        """What roles may ask of the machine itself. Best told before its services are."""
        self._move(self.offers.put_host(host))

    def drop_host(self, host_id: str) -> None:
        """It is forgotten, and its services have been."""
        self.offers.drop_host(host_id)
        self.merits.forget_host(host_id)

    def _move(self, moves: list[Moved]) -> set[str]:
        self.naming.moved(moves)
        changed = {move.endpoint for move in moves if move.asset != move.asset_before}
        for endpoint in changed:
            self._versions.pop(endpoint, None)
        return changed

    # Roles and aliases.

    def set_profiles(self, roles: Mapping[str, Role], aliases: Mapping[str, Alias]) -> None:
        """In place of those before."""
        self.naming.set_profiles(roles, aliases)

    def found_aliases(self) -> Mapping[str, Alias]:
        """Names under which one model is found that services spell differently."""
        return self.naming.found_aliases()

    # What is learned.

    def put_speed(self, endpoint: str, speed: Speed | None) -> set[str]:
        """How fast an endpoint is, in bands. None: not known any more."""
        if not self.merits.put_speed(endpoint, speed):
            return set()
        asset = self.offers.assets.get(endpoint)
        if asset is None:
            return set()
        hinted = self.merits.hint(endpoint, service_of(endpoint), asset.asset_id)
        self.naming.figures(endpoint, hinted=hinted)
        self._versions.pop(endpoint, None)
        return {endpoint}

    def put_latency(self, endpoint: str, seconds: float | None) -> None:
        """The median of whole answers, in bands. None: not known any more."""
        if self.merits.put_latency(endpoint, seconds) and endpoint in self.offers.assets:
            self.naming.figures(endpoint, hinted=False)

    def put_expected(self, model: str, tokens: int | None) -> None:
        """How long answers under this name are, in bands. None: not known any more."""
        self.naming.put_expected(model, tokens)

    def put_benchmarks(self, service: str, asset_id: str, samples: Iterable[BenchmarkSample]) -> None:
        """The newest sample of each workload, in place of those before."""
        if not self.merits.put_samples(service, asset_id, samples):
            return
        for endpoint in self.offers.having.get(asset_id, {}):
            if service_of(endpoint) == service:
                hinted = self.merits.hint(endpoint, service, asset_id)
                self.naming.figures(endpoint, hinted=hinted)

    # The rest.

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
