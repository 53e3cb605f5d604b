"""RoutingService.WatchRoutes, the gateway's side; the numbers are the steps of the RPC's comment.

Parts of an update are collected and applied together, then answered by an ack, or by a rejection with its reason (1 to
3). Load is handed on as it comes (5). Certificates are asked for on the way (7). When the stream breaks the table stays
in force, and the stream is opened again after a delay with jitter.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import grpc
import msgspec

from gateway.core.table import Rejected, Table
from gateway.watch.certificates import Certificates
from gateway.watch.kept import KeptTable
from gateway.watch.link import Link, NoCertificate
from geniehive import failures
from geniehive.convert import brief_load_from_proto, resource_from_proto
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.kit.tasks import Tasks
from geniehive.rules.model import ServiceLoad
from geniehive.v1 import failure_pb2, routing_pb2
from geniehive.v1.credential_pb2 import CertificateRequest
from geniehive.v1.registry_service_pb2_grpc import RegistryServiceStub
from geniehive.v1.routing_service_pb2 import WatchRoutesRequest, WatchRoutesResponse
from geniehive.v1.routing_service_pb2_grpc import RoutingServiceStub

if TYPE_CHECKING:  # the stub files alone have them
    from geniehive.v1.registry_service_pb2_grpc import RegistryServiceAsyncStub
    from geniehive.v1.routing_service_pb2_grpc import RoutingServiceAsyncStub

log = logging.getLogger(__name__)

Update = WatchRoutesResponse.Update
LoadSample = WatchRoutesResponse.LoadSample
if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[WatchRoutesRequest, WatchRoutesResponse]

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
    """certificates: None if this gateway needs none. on_table: called after each update applied, with the services
    whose host went offline by it. on_load: what is told of load, and for how many seconds it is good."""

    def __init__(
        self,
        link: Link,
        identity: Identity,
        table: Table,
        kept: KeptTable,
        on_table: Callable[[tuple[str, ...]], None],
        certificates: Certificates | None = None,
        *,
        on_load: Callable[[Sequence[ServiceLoad], float], None] | None = None,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._link = link
        self._identity = identity
        self._table = table
        self._kept = kept
        self._on_table = on_table
        self._certificates = certificates
        self._on_load = on_load
        self._writing = asyncio.Lock()
        self._answered = False
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._last_problem = ""
        # Where this gateway listens.
        self.base_url = ""
        # For other calls to the same control; None while it is away.
        self.stub: RoutingServiceAsyncStub | None = None
        self._registry: RegistryServiceAsyncStub | None = None
        self._channel: grpc.aio.Channel | None = None

    @property
    def channel(self) -> "grpc.aio.Channel | None":
        """As `stub`, for any question."""
        return None if self.stub is None else self._channel

    @property
    def registry(self) -> "RegistryServiceAsyncStub | None":
        """As `stub`, for questions about the cluster."""
        return None if self.stub is None else self._registry

    async def run(self) -> None:
        """Keeps the table current until cancelled. UserError if control has revoked this gateway's credential."""
        while True:
            self._answered = False
            try:
                await self._session()
                refused = Refused(failure_pb2.FAILURE_REASON_CONTROL_UNAVAILABLE, "control ended the stream")
            except grpc.aio.AioRpcError as error:
                refused = failures.from_rpc_error(error)
                if not self._answered and refused.code is grpc.StatusCode.UNAVAILABLE:
                    words = await self._link.why_not()
                    refused = Refused(refused.reason, words, code=refused.code) if words else refused
            except NoCertificate as problem:
                refused = Refused(failure_pb2.FAILURE_REASON_UNSPECIFIED, str(problem))
            await self._sleep(self._delay(refused))

    async def _session(self) -> None:
        """One stream, to its end."""
        # A channel of its own each time: an older one would wait out the delays of its own failed attempts first.
        async with self._link.channel() as channel:
            stub: RoutingServiceAsyncStub = RoutingServiceStub(channel)
            self._registry = RegistryServiceStub(channel)
            self._channel = channel
            call = stub.WatchRoutes(metadata=self._link.metadata)
            asking = Tasks()
            try:
                await call.write(await self._subscribe())
                if self._certificates is not None:
                    asking.start(self._ask_for_certificates(call, self._certificates), "ask for certificates")
                await self._receive(call, stub)
            except asyncio.InvalidStateError:
                await call.read()  # the stream had ended before our word; this raises why
            finally:
                self.stub = None
                call.cancel()
                await asking.close()
                if self._certificates is not None:
                    self._certificates.lost()

    async def _ask_for_certificates(self, call: "Call", certificates: Certificates) -> None:
        async def ask(csr: str) -> None:
            async with self._writing:
                await call.write(WatchRoutesRequest(certificate_request=CertificateRequest(csr=csr)))

        try:
            await certificates.run(ask)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader learns why

    async def _receive(self, call: "Call", stub: "RoutingServiceAsyncStub") -> None:
        parts: _Parts | None = None
        while isinstance(message := await call.read(), WatchRoutesResponse):
            if self.stub is None:
                self.stub = stub
            self._answered = True
            match message.WhichOneof("message"):
                case "load":
                    self._take_load(message.load)
                    continue
                case "trust" | "certificate":
                    self._about_certificates(message)
                    continue
                case None:
                    continue  # of a newer control
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
            async with self._writing:
                await call.write(WatchRoutesRequest(ack=ack))

    def _take_load(self, sample: LoadSample) -> None:
        if self._on_load is not None:
            loads = list(map(brief_load_from_proto, sample.services))
            self._on_load(loads, sample.stale_after.ToNanoseconds() / 1e9)

    def _about_certificates(self, message: WatchRoutesResponse) -> None:
        if self._certificates is None:
            return
        match message.WhichOneof("message"):
            case "trust":
                self._certificates.trust(message.trust)
            case "certificate":
                self._certificates.take(message.certificate)

    def _is_of_another_cluster(self, update: Update) -> bool:
        """Whether control keeps another cluster than the table is of; that table is then dropped.

        Control can't tell what of it to remove, since names and versions of the two may be the same.
        """
        held = self._table.cluster_id
        if not held or not update.cluster_id or held == update.cluster_id:
            return False
        log.warning(
            "control at %s keeps cluster %s; the table of %s is dropped", self._link.target, update.cluster_id, held
        )
        self._table.forget()
        self._kept.forget()
        return True

    def _applied(self, parts: _Parts, control_id: str, offline: tuple[str, ...]) -> None:
        if self._last_problem:
            log.info("control at %s is there again", self._link.target)
        self._last_problem = ""
        self._backoff.reset()
        log.debug("control %s: %d changed, %d removed", control_id, len(parts.changed), len(parts.removed))
        self._on_table(offline)

    async def _subscribe(self) -> WatchRoutesRequest:
        who = self._identity
        return WatchRoutesRequest(
            subscribe=WatchRoutesRequest.Subscribe(
                gateway_id=who.gateway_id,
                instance_id=who.instance_id,
                gateway_version=who.version,
                base_url=await self._link.advertised(self.base_url) if self.base_url else "",
                held_versions=self._table.versions,
            )
        )

    def _delay(self, refused: Refused) -> float:
        """Seconds until the next attempt."""
        if refused.reason == failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED:
            advice = f". To let it in, {self._link.advice}" if self._link.secured else ""
            raise UserError(
                f"control at {self._link.target} has revoked this gateway's credential: {refused.message}{advice}",
                EXIT_REFUSED,
            )
        if refused.code not in _SOON:
            self._backoff.most()
        problem = f"{refused.name}: {refused.message}" if refused.reason else refused.message
        if refused.reason == failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED and not self._link.secured:
            problem += " (setting node_key; both must have the same)"
        if problem != self._last_problem:
            going_on = "serving on from the table at hand" if self._table.ready else "there is no table to serve from"
            log.warning("control at %s is away, %s: %s", self._link.target, going_on, problem)
            self._last_problem = problem
        return max(self._backoff.next(), refused.retry_after or 0.0)
