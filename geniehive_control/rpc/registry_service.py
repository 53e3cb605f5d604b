"""RegistryService: questions about the cluster. Every answer is what control knows already."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Any

from geniehive import convert
from geniehive.rules.model import Alias, Availability, Service
from geniehive.v1 import registry_service_pb2 as pb
from geniehive.v1 import registry_service_pb2_grpc
from geniehive_control.core.hosts import HostState
from geniehive_control.core.refusal import Refusal, Why, field_invalid
from geniehive_control.core.verdict import Life
from geniehive_control.hub import Hub, Watch
from geniehive_control.rpc import profiles, views
from geniehive_control.rpc.benchmarks import list_samples
from geniehive_control.rpc.guard import caller
from geniehive_control.rpc.paging import page
from geniehive_control.rpc.usage_query import query_usage
from geniehive_control.usage import Usage

# After so long without anything else a watch says that it is still there, in seconds.
QUIET = 10.0
_SHORTEST_INTERVAL = 0.1

_Event = pb.WatchRegistryResponse


class RegistryService(registry_service_pb2_grpc.RegistryServiceServicer):
    def __init__(self, hub: Hub, control_id: str, usage: Usage, quiet: float = QUIET) -> None:
        self._hub = hub
        self._usage = usage
        self._registry = hub.registry
        self._control_id = control_id
        self._quiet = quiet

    async def ListHosts(self, request: pb.ListHostsRequest, context: Any) -> pb.ListHostsResponse:
        now = self._hub.now()
        labels = dict(request.labels)
        found = (
            (host.host_id, host)
            for host in self._registry.hosts()
            if _has_availability(host, request.availability) and _has_labels(host, labels)
        )
        hosts, token = page(request, found, lambda host: views.host_view(host, now))
        return pb.ListHostsResponse(hosts=hosts, next_page_token=token)

    async def GetHost(self, request: pb.GetHostRequest, context: Any) -> pb.GetHostResponse:
        host = self._registry.host(request.host_id)
        if host is None:
            raise _not_found("host", request.host_id)
        return pb.GetHostResponse(host=views.host_view(host, self._hub.now()))

    async def ListServices(self, request: pb.ListServicesRequest, context: Any) -> pb.ListServicesResponse:
        now = self._hub.now()
        found = (
            (service.service, (host, service))
            for host, service in self._registry.services()
            if request.host_id in ("", host.host_id) and _serves(service, request.asset_id, request.operation)
        )
        services, token = page(request, found, lambda pair: views.service_view(*pair, self._registry.figures, now))
        return pb.ListServicesResponse(services=services, next_page_token=token)

    async def GetService(self, request: pb.GetServiceRequest, context: Any) -> pb.GetServiceResponse:
        found = self._registry.service(request.service)
        if found is None:
            raise _not_found("service", request.service)
        return pb.GetServiceResponse(service=views.service_view(*found, self._registry.figures, self._hub.now()))

    async def ListRoles(self, request: pb.ListRolesRequest, context: Any) -> pb.ListRolesResponse:
        return profiles.list_roles(request, self._registry)

    async def GetRole(self, request: pb.GetRoleRequest, context: Any) -> pb.GetRoleResponse:
        return profiles.get_role(request, self._registry)

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Any) -> pb.ListAliasesResponse:
        return profiles.list_aliases(request, self._registry)

    async def GetAlias(self, request: pb.GetAliasRequest, context: Any) -> pb.GetAliasResponse:
        return profiles.get_alias(request, self._registry)

    async def GetClusterHealth(self, request: pb.GetClusterHealthRequest, context: Any) -> pb.GetClusterHealthResponse:
        return pb.GetClusterHealthResponse(health=views.cluster_health(self._registry, self._control_id))

    async def WatchRegistry(self, request: pb.WatchRegistryRequest, context: Any) -> AsyncIterator[_Event]:
        watch = self._hub.open_watch(caller().key_id)
        try:
            async for event in self._watch(watch, frozenset(request.kinds)):
                yield event
        finally:
            self._hub.close_watch(watch)

    async def _watch(self, watch: Watch, kinds: frozenset[int]) -> AsyncIterator[_Event]:
        wanted = kinds or frozenset(pb.ObjectKind.values())
        sent = _Sent()
        hosts = [host.host_id for host in self._registry.hosts()]
        services = [service.service for _, service in self._registry.services()]
        samples = [sample.sample_id for sample in self._registry.benchmarks]
        for event in self._events(wanted, hosts, services, cluster=True, sent=sent):
            yield event
        for event in self._profiles(wanted, self._registry.catalogue.roles, self._registry.catalogue.aliases, sent):
            yield event
        for event in self._samples(wanted, samples, sent):
            yield event
        yield _synced()
        loop = asyncio.get_running_loop()
        due = loop.time() + self._quiet
        while True:
            if not await watch.wait(max(0.0, due - loop.time())):
                yield _synced()
                due = loop.time() + self._quiet
                continue
            if watch.refusal is not None:
                raise watch.refusal
            changed = watch.take()
            for event in self._events(wanted, sorted(changed.hosts), sorted(changed.services), changed.cluster, sent):
                yield event
                due = loop.time() + self._quiet
            # Services too, since names are found by them.
            if changed.roles or changed.aliases or changed.services:
                for event in self._profiles(wanted, changed.roles, changed.aliases, sent):
                    yield event
                    due = loop.time() + self._quiet
            for event in self._samples(wanted, sorted(changed.benchmarks), sent):
                yield event
                due = loop.time() + self._quiet

    def _events(
        self, kinds: frozenset[int], hosts: list[str], services: list[str], cluster: bool, sent: "_Sent"
    ) -> Iterator[_Event]:
        """Each object as it is when its turn comes, however slow the reader is."""
        for host_id in hosts if pb.OBJECT_KIND_HOST in kinds else ():
            if (host := self._registry.host(host_id)) is not None:
                sent.names.add((pb.OBJECT_KIND_HOST, host_id))
                yield _Event(changed=_Event.Object(host=views.host_view(host, None)))
            elif sent.forget(pb.OBJECT_KIND_HOST, host_id):
                yield _Event(removed=_Event.Removed(kind=pb.OBJECT_KIND_HOST, name=host_id))
        for name in services if pb.OBJECT_KIND_SERVICE in kinds else ():
            if (found := self._registry.service(name)) is not None:
                sent.names.add((pb.OBJECT_KIND_SERVICE, name))
                yield _Event(changed=_Event.Object(service=views.service_view(*found, self._registry.figures, None)))
            elif sent.forget(pb.OBJECT_KIND_SERVICE, name):
                yield _Event(removed=_Event.Removed(kind=pb.OBJECT_KIND_SERVICE, name=name))
        if cluster and pb.OBJECT_KIND_CLUSTER_HEALTH in kinds:
            health = views.cluster_health(self._registry, self._control_id)
            if health != sent.health:
                sent.health = health
                yield _Event(changed=_Event.Object(cluster_health=health))

    def _profiles(
        self, kinds: frozenset[int], roles: Collection[str], aliases: Collection[str], sent: "_Sent"
    ) -> Iterator[_Event]:
        kind = pb.OBJECT_KIND_ROLE
        for role_id in sorted(roles) if kind in kinds else ():
            if (role := self._registry.catalogue.roles.get(role_id)) is not None:
                sent.names.add((kind, role_id))
                yield _Event(changed=_Event.Object(role=convert.role_to_proto(role)))
            elif sent.forget(kind, role_id):
                yield _Event(removed=_Event.Removed(kind=kind, name=role_id))
        kind = pb.OBJECT_KIND_ALIAS
        if kind not in kinds:
            return
        # Which names are found follows from services, and nobody tells.
        found = dict(self._registry.table.found_aliases())
        before, sent.found = sent.found, found
        changed = {name for name in before.keys() | found.keys() if before.get(name) != found.get(name)}
        for name in sorted(changed.union(aliases)):
            alias = self._registry.catalogue.aliases.get(name) or found.get(name)
            if alias is not None:
                sent.names.add((kind, name))
                yield _Event(changed=_Event.Object(alias=convert.alias_to_proto(alias)))
            elif sent.forget(kind, name):
                yield _Event(removed=_Event.Removed(kind=kind, name=name))

    def _samples(self, kinds: frozenset[int], ids: list[str], sent: "_Sent") -> Iterator[_Event]:
        """The newest of each service, model and workload; one that is no longer is gone."""
        kind = pb.OBJECT_KIND_BENCHMARK
        for sample_id in ids if kind in kinds else ():
            if (sample := self._registry.benchmarks.get(sample_id)) is not None:
                sent.names.add((kind, sample_id))
                yield _Event(changed=_Event.Object(benchmark=convert.sample_to_proto(sample)))
            elif sent.forget(kind, sample_id):
                yield _Event(removed=_Event.Removed(kind=kind, name=sample_id))

    async def WatchLoad(self, request: pb.WatchLoadRequest, context: Any) -> AsyncIterator[pb.WatchLoadResponse]:
        interval = 1.0
        if request.HasField("interval"):
            interval = request.interval.ToNanoseconds() / 1e9
        if interval < _SHORTEST_INTERVAL:
            raise field_invalid("interval", f"is shorter than {_SHORTEST_INTERVAL:g} s")
        wanted = frozenset(request.host_ids)
        watch = self._hub.open_watch(caller().key_id, changes=False)
        try:
            while True:
                yield self._load(wanted)
                await watch.wait(interval)
                if watch.refusal is not None:
                    raise watch.refusal
        finally:
            self._hub.close_watch(watch)

    def _load(self, host_ids: frozenset[str]) -> pb.WatchLoadResponse:
        now = self._hub.now()
        response = pb.WatchLoadResponse()
        for host in self._registry.hosts():
            if host.life is not Life.ONLINE or (host_ids and host.host_id not in host_ids):
                continue
            if host.machine_load is not None:
                response.machines.append(convert.machine_load_to_proto(host.machine_load))
            for name in host.loads:
                if (load := host.load_of(name, now)) is not None:
                    response.services.append(convert.service_load_to_proto(load))
        for (model, operation), (in_flight, waiting) in self._usage.routes().items():
            response.routes.add(
                model=model,
                operation=operation,
                in_flight=in_flight,
                waiting=waiting,
            )
        return response

    async def ListBenchmarkSamples(
        self, request: pb.ListBenchmarkSamplesRequest, context: Any
    ) -> pb.ListBenchmarkSamplesResponse:
        return await list_samples(request, self._hub)

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Any) -> pb.QueryUsageResponse:
        return await query_usage(request, self._usage, self._hub.now().wall)


class _Sent:
    """What one watcher knows: an object that it never saw need not be removed."""

    def __init__(self) -> None:
        self.names: set[tuple[int, str]] = set()
        self.health: pb.ClusterHealth | None = None
        self.found: dict[str, Alias] = {}

    def forget(self, kind: int, name: str) -> bool:
        known = (kind, name) in self.names
        self.names.discard((kind, name))
        return known


def _synced() -> _Event:
    return _Event(synced=_Event.Synced())


def _has_availability(host: HostState, number: int) -> bool:
    if number == Availability.UNKNOWN:
        return True
    return host.condition.availability == number


def _has_labels(host: HostState, labels: dict[str, str]) -> bool:
    assert host.info is not None
    held = host.info.labels
    return all(held.get(name) == value for name, value in labels.items())


def _serves(service: Service, asset_id: str, operation: int) -> bool:
    if not asset_id and not operation:
        return True
    if not asset_id and not service.assets:
        return operation in service.operations
    return any(
        asset_id in ("", asset.asset_id) and (not operation or operation in service.operations_of(asset))
        for asset in service.assets
    )


def _not_found(kind: str, name: str) -> Refusal:
    return Refusal(Why.OBJECT_NOT_FOUND, f"there is no {kind} {name!r}", name=name)
