"""RoutingService.WatchRoutes, the gateway's side; the numbers are the steps of the RPC's comment.

Parts of an update are collected and applied together, then answered by an ack, or by a rejection with its reason (1 to
3). When the stream breaks the table stays in force, and the stream is opened again after a delay with jitter.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc
import msgspec

from gateway.core.table import Rejected, Table
from gateway.watch.kept import KeptTable
from geniehive import channels, failures
from geniehive.convert import resource_from_proto
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.v1 import failure_pb2, routing_pb2
from geniehive.v1.routing_service_pb2 import WatchRoutesRequest, WatchRoutesResponse
from geniehive.v1.routing_service_pb2_grpc import RoutingServiceStub

if TYPE_CHECKING:  # the stub file alone has it
    from geniehive.v1.routing_service_pb2_grpc import RoutingServiceAsyncStub

log = logging.getLogger(__name__)

Update = WatchRoutesResponse.Update

# After these codes it is tried again soon; after any other, with the longest delay (failure.proto).
# INTERNAL is what grpc.aio makes of any end of a stream that meets a write of ours.
_SOON = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    }
)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says of itself; see WatchRoutesRequest.Subscribe."""

    gateway_id: str
    instance_id: str
    version: str


class _Parts:
    """The parts of one update that have come so far."""

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce
        self.changed: list[routing_pb2.Resource] = []
        self.removed: list[str] = []
        self.cluster_id = ""

    def add(self, update: Update) -> None:
        self.changed += update.changed
        self.removed += update.removed
        self.cluster_id = update.cluster_id or self.cluster_id

    def apply(self, table: Table) -> tuple[str, ...]:
        """As Table.apply; also ValueError for what can't be read."""
        return table.apply(tuple(map(resource_from_proto, self.changed)), tuple(self.removed), self.cluster_id)


class RouteStream:
    """node_key: None sends none, as to a control that asks for none. on_table: called after each
    update applied, with the services whose host went offline by it."""

    def __init__(
        self,
        control: str,
        node_key: str | None,
        identity: Identity,
        table: Table,
        kept: KeptTable,
        on_table: Callable[[tuple[str, ...]], None],
        *,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._control = control
        self._metadata = ((channels.NODE_KEY, node_key),) if node_key else ()
        self._identity = identity
        self._table = table
        self._kept = kept
        self._on_table = on_table
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._last_problem = ""
        # Where clients reach this gateway, once it listens.
        self.base_url = ""
        # For other calls to the same control; None while it is away.
        self.stub: RoutingServiceAsyncStub | None = None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """By which this gateway proves itself."""
        return self._metadata

    async def run(self) -> None:
        """Keeps the table current until cancelled. UserError if control has revoked this gateway's credential."""
        while True:
            try:
                await self._session()
                refused = Refused(failure_pb2.FAILURE_REASON_CONTROL_UNAVAILABLE, "control ended the stream")
            except grpc.aio.AioRpcError as error:
                refused = failures.from_rpc_error(error)
            await self._sleep(self._delay(refused))

    async def _session(self) -> None:
        """One stream, to its end."""
        # A channel of its own each time: an older one would wait out the delays of its own failed attempts first.
        async with channels.aio_channel(self._control) as channel:
            stub: RoutingServiceAsyncStub = RoutingServiceStub(channel)
            call = stub.WatchRoutes(metadata=self._metadata)
            try:
                await call.write(self._subscribe())
                await self._receive(call, stub)
            except asyncio.InvalidStateError:
                await call.read()  # the stream had ended before our word; this raises why
            finally:
                self.stub = None
                call.cancel()

    async def _receive(
        self,
        call: "grpc.aio.StreamStreamCall[WatchRoutesRequest, WatchRoutesResponse]",
        stub: "RoutingServiceAsyncStub",
    ) -> None:
        parts: _Parts | None = None
        while isinstance(message := await call.read(), WatchRoutesResponse):
            if self.stub is None:
                self.stub = stub
            if message.WhichOneof("message") != "update":
                continue  # load samples, certificates and trust are not used by this version
            update = message.update
            if parts is None or parts.nonce != update.nonce:
                parts = _Parts(update.nonce)
            if self._is_of_another_cluster(update):
                return
            parts.add(update)
            if update.more:
                continue
            rejected = None
            try:
                offline = parts.apply(self._table)
            except (Rejected, ValueError, TypeError) as problem:
                log.error("an update of the table was refused, and the older table stays in force: %s", problem)
                rejected = Refused(failure_pb2.FAILURE_REASON_TABLE_REJECTED, str(problem))
            else:
                self._kept.note(parts.changed, parts.removed, parts.cluster_id)
                self._applied(parts, update.control_id, offline)
            parts = None
            ack = WatchRoutesRequest.Ack(nonce=update.nonce)
            if rejected is not None:
                ack.rejected.CopyFrom(failures.to_failure(rejected))
            await call.write(WatchRoutesRequest(ack=ack))

    def _is_of_another_cluster(self, update: Update) -> bool:
        """Whether control keeps another cluster than the table is of; that table is then dropped.

        Control can't tell what of it to remove, since names and versions of the two may be the same.
        """
        held = self._table.cluster_id
        if not held or not update.cluster_id or held == update.cluster_id:
            return False
        log.warning(
            "control at %s keeps cluster %s; the table of %s is dropped", self._control, update.cluster_id, held
        )
        self._table.forget()
        self._kept.forget()
        return True

    def _applied(self, parts: _Parts, control_id: str, offline: tuple[str, ...]) -> None:
        if self._last_problem:
            log.info("control at %s is there again", self._control)
        self._last_problem = ""
        self._backoff.reset()
        log.debug("control %s: %d changed, %d removed", control_id, len(parts.changed), len(parts.removed))
        self._on_table(offline)

    def _subscribe(self) -> WatchRoutesRequest:
        who = self._identity
        return WatchRoutesRequest(
            subscribe=WatchRoutesRequest.Subscribe(
                gateway_id=who.gateway_id,
                instance_id=who.instance_id,
                gateway_version=who.version,
                base_url=self.base_url,
                held_versions=self._table.versions,
            )
        )

    def _delay(self, refused: Refused) -> float:
        """Seconds until the next attempt."""
        if refused.reason == failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED:
            raise UserError(
                f"control at {self._control} has revoked this gateway's credential: {refused.message}", EXIT_REFUSED
            )
        if refused.code not in _SOON:
            self._backoff.most()
        problem = f"{refused.name}: {refused.message}" if refused.reason else refused.message
        if refused.reason == failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED:
            problem += " (setting node_key; both must have the same)"
        if problem != self._last_problem:
            going_on = "serving on from the table at hand" if self._table.ready else "there is no table to serve from"
            log.warning("control at %s is away, %s: %s", self._control, going_on, problem)
            self._last_problem = problem
        return max(self._backoff.next(), refused.retry_after or 0.0)
