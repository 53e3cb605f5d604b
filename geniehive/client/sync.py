"""The synchronous client."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from geniehive import channels
from geniehive.client import target as targets
from geniehive.client import views
from geniehive.client.calls import SERVICES, SyncFacade, SyncStream
from geniehive.client.hive import PAGE_SIZE, RETRIES, SILENCE
from geniehive.failures import Refused
from geniehive.v1 import admin_service_pb2, registry_service_pb2, routing_service_pb2
from geniehive.v1.benchmark_pb2 import BenchmarkSample
from geniehive.v1.registry_service_pb2 import HostView, ObjectKind, ServiceView, WatchLoadResponse
from geniehive.v1.request_pb2 import Operation
from geniehive.v1.role_pb2 import Alias, Role
from geniehive.v1.routing_pb2 import Route
from geniehive.v1.routing_service_pb2 import ExplainRouteResponse, MatchRoutesResponse

if TYPE_CHECKING:
    from geniehive.v1.admin_service_pb2_grpc import AdminServiceStub
    from geniehive.v1.node_service_pb2_grpc import NodeServiceStub
    from geniehive.v1.registry_service_pb2_grpc import RegistryServiceStub
    from geniehive.v1.routing_service_pb2_grpc import RoutingServiceStub

Told = TypeVar("Told")


def connect_sync(
    control: str | None = None,
    *,
    key: str | None = None,
    ca: str | Path | None = None,
    retries: int = RETRIES,
    channel: grpc.Channel | None = None,
) -> "SyncHive":
    """As `geniehive.connect`, without asyncio; use it as `with geniehive.connect_sync() as hive`."""
    return SyncHive(targets.find(control, key, ca), retries, channel)


def pages(call: Callable[[Any], Any], request: Any, field: str) -> list[Any]:
    """Every object of a list call, page by page. `field` names them in the response."""
    found: list[Any] = []
    while True:
        page = call(request)
        found.extend(getattr(page, field))
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


class SyncHive:
    """Control's services, as typed stubs. Calls raise Refused. May be used by several threads."""

    registry: "RegistryServiceStub"
    routing: "RoutingServiceStub"
    admin: "AdminServiceStub"
    nodes: "NodeServiceStub"

    def __init__(self, target: targets.Target, retries: int, channel: grpc.Channel | None) -> None:
        self._target = target
        self._retries = retries
        self._channel = channel
        self._own_channel = channel is None
        self._watches: set[SyncWatch[Any]] = set()

    def __repr__(self) -> str:
        return f"<SyncHive at {self._target.control}>"

    @property
    def control(self) -> str:
        """The address in use."""
        return self._target.control

    def __enter__(self) -> Self:
        target = self._target
        channel = self._channel = self._channel or channels.sync_channel(target.control, target.tls)
        for name, (stub, service) in SERVICES.items():
            made = SyncFacade(stub(channel), service, target.metadata, self._retries, target.why_not)
            setattr(self, name, made)
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        for watch in tuple(self._watches):
            watch.close()
        if self._own_channel and self._channel is not None:
            channel, self._channel = self._channel, None
            channel.close()

    def list_hosts(self) -> list[HostView]:
        """All hosts, through all pages, by name."""
        request = registry_service_pb2.ListHostsRequest(page_size=PAGE_SIZE)
        return pages(self.registry.ListHosts, request, "hosts")

    def list_services(self) -> list[ServiceView]:
        """All services with their models, through all pages, by name."""
        request = registry_service_pb2.ListServicesRequest(page_size=PAGE_SIZE)
        return pages(self.registry.ListServices, request, "services")

    def list_routes(self) -> list[Route]:
        """All names that clients may write, through all pages, by name."""
        request = routing_service_pb2.ListRoutesRequest(page_size=PAGE_SIZE)
        return pages(self.routing.ListRoutes, request, "routes")

    def list_roles(self) -> list[Role]:
        """All roles, through all pages, by id."""
        request = registry_service_pb2.ListRolesRequest(page_size=PAGE_SIZE)
        return pages(self.registry.ListRoles, request, "roles")

    def list_aliases(self) -> list[Alias]:
        """All aliases, those that control found by itself too, through all pages, by name."""
        request = registry_service_pb2.ListAliasesRequest(page_size=PAGE_SIZE)
        return pages(self.registry.ListAliases, request, "aliases")

    def list_benchmarks(self, model: str = "", service: str = "", workload: str = "") -> list[BenchmarkSample]:
        """Measured samples, newest first, through all pages; of these alone, where said."""
        request = registry_service_pb2.ListBenchmarkSamplesRequest(
            page_size=PAGE_SIZE, service=service, asset_id=model, workload=workload
        )
        return pages(self.registry.ListBenchmarkSamples, request, "samples")

    def match(
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
        return list((self.routing.MatchRoutes(request)).candidates)

    def explain(
        self, model: str, operation: Operation.ValueType = Operation.OPERATION_UNSPECIFIED
    ) -> ExplainRouteResponse:
        """Why a name leads where it does: gates, tiers, scores, policies. The waits are a gateway's to tell."""
        request = routing_service_pb2.ExplainRouteRequest(model=model, operation=operation)
        return self.routing.ExplainRoute(request)

    def create_role(self, role: Role) -> Role:
        """As it is stored."""
        return self.admin.CreateRole(admin_service_pb2.CreateRoleRequest(role=role)).role

    def update_role(self, role: Role, paths: Iterable[str] = ("*",)) -> Role:
        """The role as it is then.

        paths: the fields to take from `role`. Its etag must be the present one; empty: whatever it is.
        """
        request = admin_service_pb2.UpdateRoleRequest(role=role, update_mask=FieldMask(paths=paths))
        return self.admin.UpdateRole(request).role

    def delete_role(self, role_id: str, etag: str = "") -> None:
        """etag: it must be the present one; empty: whatever it is."""
        self.admin.DeleteRole(admin_service_pb2.DeleteRoleRequest(role_id=role_id, etag=etag))

    def set_alias(self, alias: str, target: str, etag: str = "") -> Alias:
        """etag: of the alias that is changed; empty: there is none yet."""
        given = Alias(alias=alias, target=target, etag=etag)
        return self.admin.SetAlias(admin_service_pb2.SetAliasRequest(alias=given)).alias

    def delete_alias(self, alias: str, etag: str = "") -> None:
        """etag: as for `delete_role`."""
        self.admin.DeleteAlias(admin_service_pb2.DeleteAliasRequest(alias=alias, etag=etag))

    def watch(
        self, kinds: Iterable[ObjectKind.ValueType] = (), *, silence: float = SILENCE
    ) -> "SyncWatch[views.Event]":
        """As Hive.watch."""
        request = registry_service_pb2.WatchRegistryRequest(kinds=kinds)
        return self._watch(
            lambda: cast(SyncStream, self.registry.WatchRegistry(request)), views.RegistryView(), silence
        )

    def watch_load(self, interval: float = 1.0, host_ids: Iterable[str] = ()) -> "SyncWatch[WatchLoadResponse]":
        """As Hive.watch_load."""
        request = registry_service_pb2.WatchLoadRequest(host_ids=host_ids)
        request.interval.FromNanoseconds(int(interval * 1e9))
        quiet = max(10.0, 5 * interval)
        return self._watch(lambda: cast(SyncStream, self.registry.WatchLoad(request)), views.LoadView(), quiet)

    def _watch(
        self, open_stream: Callable[[], SyncStream], view: views.View[Any, Told], silence: float
    ) -> "SyncWatch[Told]":
        watch = SyncWatch(open_stream, view, silence, self._watches.discard)
        self._watches.add(watch)
        return watch


class SyncWatch(Generic[Told]):
    """As Watch. One thread iterates; any thread may close it."""

    def __init__(
        self,
        open_stream: Callable[[], SyncStream],
        view: views.View[Any, Told],
        silence: float,
        closed: Callable[["SyncWatch[Told]"], None],
        reopening: views.Reopening | None = None,
    ) -> None:
        self._open = open_stream
        self._view = view
        self._silence = silence
        self._when_closed = closed
        self._reopening = reopening or views.Reopening()
        self._events: deque[Told] = deque()
        self._stream: SyncStream | None = None
        self._delay = 0.0
        self._closing = threading.Event()
        # Since when the iterating thread waits for a message; None: it does not.
        self._waiting_since: float | None = None
        self._was_silent = False
        self._guard: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Told]:
        return self

    def __next__(self) -> Told:
        while not self._events:
            if self._closing.wait(self._delay):
                raise StopIteration
            self._delay = 0.0
            self._advance()
        return self._events.popleft()

    def _advance(self) -> None:
        if self._guard is None:
            self._guard = threading.Thread(target=self._end_silence, name="watch", daemon=True)
            self._guard.start()
        if self._stream is None:
            self._stream = self._open()
        stream = self._stream
        if self._closing.is_set():
            stream.cancel()
            return
        self._waiting_since = time.monotonic()
        try:
            message = next(stream)
        except StopIteration:
            cause = views.ended()
        except Refused as error:
            cause = views.silence(self._silence) if self._was_silent else error
        else:
            self._reopening.worked()
            self._events.extend(self._view.message(message))
            return
        finally:
            self._waiting_since = None
        self._was_silent = False
        self._stream = None
        if self._closing.is_set():
            return
        delay = self._reopening.delay(cause)
        if delay is None:
            self.close()
            raise cause
        self._delay = delay
        self._events.extend(self._view.broken(cause))

    def _end_silence(self) -> None:
        """Runs in a thread of its own: a blocked read can only be ended from outside."""
        wait = self._silence
        while not self._closing.wait(wait):
            since, stream = self._waiting_since, self._stream
            wait = self._silence
            if since is None or stream is None:
                continue
            wait -= time.monotonic() - since
            if wait <= 0:
                self._was_silent = True
                stream.cancel()
                wait = self._silence

    def close(self) -> None:
        """Ends it; who waits for the next event gets the end."""
        self._closing.set()
        if (stream := self._stream) is not None:
            stream.cancel()
        self._when_closed(self)
