"""The asynchronous client."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from geniehive import channels
from geniehive.client import target as targets
from geniehive.client import views
from geniehive.client.calls import SERVICES, Facade, Stream
from geniehive.failures import Refused
from geniehive.v1 import admin_service_pb2, registry_service_pb2, routing_service_pb2
from geniehive.v1.benchmark_pb2 import BenchmarkSample
from geniehive.v1.registry_service_pb2 import HostView, ObjectKind, ServiceView, WatchLoadResponse
from geniehive.v1.request_pb2 import Operation
from geniehive.v1.role_pb2 import Alias, Role
from geniehive.v1.routing_pb2 import Route
from geniehive.v1.routing_service_pb2 import ExplainRouteResponse, MatchRoutesResponse

if TYPE_CHECKING:
    from geniehive.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from geniehive.v1.node_service_pb2_grpc import NodeServiceAsyncStub
    from geniehive.v1.registry_service_pb2_grpc import RegistryServiceAsyncStub
    from geniehive.v1.routing_service_pb2_grpc import RoutingServiceAsyncStub

Told = TypeVar("Told")

RETRIES = 3
# Control speaks at least every 10 s on a watch of objects.
SILENCE = 30.0
PAGE_SIZE = 1000


def connect(
    control: str | None = None,
    *,
    key: str | None = None,
    ca: str | Path | None = None,
    retries: int = RETRIES,
    channel: grpc.aio.Channel | None = None,
) -> "Hive":
    """A client of control; use it as `async with geniehive.connect() as hive`.

    control: "HOST:PORT"; key: a client key; ca: the file of the cluster's CA, in PEM, for a control on another
    machine. Left out: see `geniehive.client.target`.
    retries: how often a read is tried again, within its deadline, when control can't be reached. Writes never are.
    channel: to be used in place of one of its own, and left open.

    UserError if address, key or CA can't be used. Nothing is sent before the first call.
    """
    return Hive(targets.find(control, key, ca), retries, channel)


async def _pages(call: Callable[[Any], Awaitable[Any]], request: Any, field: str) -> list[Any]:
    """Every object of a list call, page by page. `field` names them in the response."""
    found: list[Any] = []
    while True:
        page = await call(request)
        found.extend(getattr(page, field))
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


class Hive:
    """Control's services, as typed stubs. Calls raise Refused."""

    registry: "RegistryServiceAsyncStub"
    routing: "RoutingServiceAsyncStub"
    admin: "AdminServiceAsyncStub"
    nodes: "NodeServiceAsyncStub"

    def __init__(self, target: targets.Target, retries: int, channel: grpc.aio.Channel | None) -> None:
        self._target = target
        self._retries = retries
        self._channel = channel
        self._own_channel = channel is None
        self._watches: set[Watch[Any]] = set()

    def __repr__(self) -> str:
        return f"<Hive at {self._target.control}>"

    @property
    def control(self) -> str:
        """The address in use."""
        return self._target.control

    async def __aenter__(self) -> Self:
        target = self._target
        channel = self._channel = self._channel or channels.aio_channel(target.control, target.tls)
        for name, (stub, service) in SERVICES.items():
            made = Facade(stub(channel), service, target.metadata, self._retries, target.why_not_async)
            setattr(self, name, made)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for watch in tuple(self._watches):
            await watch.close()
        if self._own_channel and self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def list_hosts(self) -> list[HostView]:
        """All hosts, through all pages, by name."""
        request = registry_service_pb2.ListHostsRequest(page_size=PAGE_SIZE)
        return await _pages(self.registry.ListHosts, request, "hosts")

    async def list_services(self) -> list[ServiceView]:
        """All services with their models, through all pages, by name."""
        request = registry_service_pb2.ListServicesRequest(page_size=PAGE_SIZE)
        return await _pages(self.registry.ListServices, request, "services")

    async def list_routes(self) -> list[Route]:
        """All names that clients may write, through all pages, by name."""
        request = routing_service_pb2.ListRoutesRequest(page_size=PAGE_SIZE)
        return await _pages(self.routing.ListRoutes, request, "routes")

    async def list_roles(self) -> list[Role]:
        """All roles, through all pages, by id."""
        request = registry_service_pb2.ListRolesRequest(page_size=PAGE_SIZE)
        return await _pages(self.registry.ListRoles, request, "roles")

    async def list_aliases(self) -> list[Alias]:
        """All aliases, those that control found by itself too, through all pages, by name."""
        request = registry_service_pb2.ListAliasesRequest(page_size=PAGE_SIZE)
        return await _pages(self.registry.ListAliases, request, "aliases")

    async def list_benchmarks(self, model: str = "", service: str = "", workload: str = "") -> list[BenchmarkSample]:
        """Measured samples, newest first, through all pages; of these alone, where said."""
        request = registry_service_pb2.ListBenchmarkSamplesRequest(
            page_size=PAGE_SIZE, service=service, asset_id=model, workload=workload
        )
        return await _pages(self.registry.ListBenchmarkSamples, request, "samples")

    async def match(
        self,
        *tasks: str,
        workloads: Iterable[str] = (),
        operation: Operation.ValueType = Operation.OPERATION_UNSPECIFIED,
        include_services: bool = False,
        limit: int = 0,
    ) -> list[MatchRoutesResponse.Candidate]:
        """Which roles, or services too, fit tasks in free text, or workloads: best first, with score and reasons."""
        request = routing_service_pb2.MatchRoutesRequest(
            tasks=tasks, workloads=workloads, operation=operation, include_services=include_services, limit=limit
        )
        return list((await self.routing.MatchRoutes(request)).candidates)

    async def explain(
        self, model: str, operation: Operation.ValueType = Operation.OPERATION_UNSPECIFIED
    ) -> ExplainRouteResponse:
        """Why a name leads where it does: gates, tiers, scores, policies. The waits are a gateway's to tell."""
        request = routing_service_pb2.ExplainRouteRequest(model=model, operation=operation)
        return await self.routing.ExplainRoute(request)

    async def create_role(self, role: Role) -> Role:
        """As it is stored."""
        return (await self.admin.CreateRole(admin_service_pb2.CreateRoleRequest(role=role))).role

    async def update_role(self, role: Role, paths: Iterable[str] = ("*",)) -> Role:
        """The role as it is then.

        paths: the fields to take from `role`. Its etag must be the present one; empty: whatever it is.
        """
        request = admin_service_pb2.UpdateRoleRequest(role=role, update_mask=FieldMask(paths=paths))
        return (await self.admin.UpdateRole(request)).role

    async def delete_role(self, role_id: str, etag: str = "") -> None:
        """etag: it must be the present one; empty: whatever it is."""
        await self.admin.DeleteRole(admin_service_pb2.DeleteRoleRequest(role_id=role_id, etag=etag))

    async def set_alias(self, alias: str, target: str, etag: str = "") -> Alias:
        """etag: of the alias that is changed; empty: there is none yet."""
        given = Alias(alias=alias, target=target, etag=etag)
        return (await self.admin.SetAlias(admin_service_pb2.SetAliasRequest(alias=given))).alias

    async def delete_alias(self, alias: str, etag: str = "") -> None:
        """etag: as for `delete_role`."""
        await self.admin.DeleteAlias(admin_service_pb2.DeleteAliasRequest(alias=alias, etag=etag))

    def watch(self, kinds: Iterable[ObjectKind.ValueType] = (), *, silence: float = SILENCE) -> "Watch[views.Event]":
        """Objects as they change, of these kinds or all; goes on by itself after a break. See `geniehive.client.views`.

        silence: seconds without a word after which the stream counts as broken.
        """
        request = registry_service_pb2.WatchRegistryRequest(kinds=kinds)
        return self._watch(lambda: cast(Stream, self.registry.WatchRegistry(request)), views.RegistryView(), silence)

    def watch_load(self, interval: float = 1.0, host_ids: Iterable[str] = ()) -> "Watch[WatchLoadResponse]":
        """Load every `interval` seconds, of these hosts or all. Each message is whole. Goes on after a break."""
        request = registry_service_pb2.WatchLoadRequest(host_ids=host_ids)
        request.interval.FromNanoseconds(int(interval * 1e9))
        quiet = max(10.0, 5 * interval)
        return self._watch(lambda: cast(Stream, self.registry.WatchLoad(request)), views.LoadView(), quiet)

    def _watch(self, open_stream: Callable[[], Stream], view: views.View[Any, Told], silence: float) -> "Watch[Told]":
        watch = Watch(open_stream, view, silence, self._watches.discard)
        self._watches.add(watch)
        return watch


class Watch(Generic[Told]):
    """An endless iterator over what a view tells. `async with`, or `close`, ends it earlier than its Hive does.

    Waiting for the next one may be cancelled without losing anything. Refused ends it for good: a credential or a
    request that control does not accept.
    """

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        view: views.View[Any, Told],
        silence: float,
        closed: Callable[["Watch[Told]"], None],
        reopening: views.Reopening | None = None,
    ) -> None:
        self._open = open_stream
        self._view = view
        self._silence = silence
        self._when_closed = closed
        self._reopening = reopening or views.Reopening()
        self._events: deque[Told] = deque()
        self._stream: Stream | None = None
        self._step: asyncio.Task[Any] | None = None
        self._delay = 0.0
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Told]:
        return self

    async def __anext__(self) -> Told:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            await self._advance()
        return self._events.popleft()

    async def _advance(self) -> None:
        # A task of its own, and not waited for directly: cancelling a read would end the stream.
        if self._step is None:
            self._step = asyncio.create_task(self._read(), name="watch")
        done, _ = await asyncio.wait({self._step}, timeout=self._delay + self._silence)
        if self._closed:
            return
        if not done:
            self._drop()
            self._break(views.silence(self._silence))
            return
        step, self._step = self._step, None
        try:
            message = step.result()
        except Refused as error:
            self._drop()
            self._break(error)
            return
        if message is grpc.aio.EOF:
            self._drop()
            self._break(views.ended())
            return
        self._reopening.worked()
        self._events.extend(self._view.message(message))

    async def _read(self) -> Any:
        if self._stream is None:
            await asyncio.sleep(self._delay)
            self._delay = 0.0
            self._stream = self._open()
        return await self._stream.read()

    def _break(self, cause: Refused) -> None:
        delay = self._reopening.delay(cause)
        if delay is None:
            self._end()
            raise cause
        self._delay = delay
        self._events.extend(self._view.broken(cause))

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
        if self._step is not None:
            self._step.cancel()
            self._step = None

    def _end(self) -> None:
        self._closed = True
        self._drop()
        self._when_closed(self)

    async def close(self) -> None:
        """Ends it; who waits for the next event gets the end."""
        step = self._step
        self._end()
        if step is not None:
            await asyncio.gather(step, return_exceptions=True)
