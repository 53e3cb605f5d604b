"""RoutingService.ReportOutcomes, the gateway's side; the numbers are the steps of the RPC's comment.

Control says how often (1). A report with rows is kept until control has stored it, and sent again on the next stream
(2). While too many are kept, or control is away, nothing is queued: the sums go on adding up, in a bounded number of
rows (3). What is lost when this process is killed is what control has not taken yet: one interval, if it is there.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import grpc

from gateway.core.sums import Row, Sums
from gateway.watch.stream import Identity
from geniehive import failures
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import Clock
from geniehive.kit.tasks import Tasks
from geniehive.rules.operations import Operation
from geniehive.v1 import load_pb2, usage_pb2
from geniehive.v1.routing_service_pb2 import ReportOutcomesRequest, ReportOutcomesResponse

if TYPE_CHECKING:  # the stub file alone has it
    from geniehive.v1.routing_service_pb2_grpc import RoutingServiceAsyncStub

    Call = grpc.aio.StreamStreamCall[ReportOutcomesRequest, ReportOutcomesResponse]

log = logging.getLogger(__name__)

# Until control has said it.
_INTERVAL = 5.0
# How often it is looked whether control is there.
_LOOK_EVERY = 0.2
# Of a report: to make and to read one takes some milliseconds, and by the longest names it is far below 4 MiB.
_ROWS = 250
# Reports that control has not stored.
_KEPT = 32


class RouteGauge(NamedTuple):
    """Requests under one name now."""

    model: str
    operation: Operation
    in_flight: int
    waiting: int = 0


class Gauges(NamedTuple):
    """What is under way. ejected: endpoints that are left out."""

    routes: Sequence[RouteGauge] = ()
    ejected: Iterable[str] = ()


class OutcomeReports:
    """stub: to reach control by; None while it is away. metadata: what proves this gateway. gauges: of this moment."""

    def __init__(
        self,
        stub: "Callable[[], RoutingServiceAsyncStub | None]",
        metadata: tuple[tuple[str, str], ...],
        identity: Identity,
        sums: Sums,
        gauges: Callable[[], Gauges],
        clock: Clock,
        backoff: Backoff | None = None,
    ) -> None:
        self._stub = stub
        self._metadata = metadata
        self._identity = identity
        self._sums = sums
        self._gauges = gauges
        self._clock = clock
        self._interval = _INTERVAL
        self._sequence = 0
        self._kept: deque[ReportOutcomesRequest] = deque()
        # Taken from the sums, and in no report yet.
        self._rows: list[Row] = []
        self._reported_at = clock.now()
        self._backoff = backoff or Backoff(1.0, 30.0)
        self._last_problem = ""
        # Set whenever control has stored something, or can't any more.
        self._stored = asyncio.Event()
        # A report is wanted before the interval is over.
        self._early = asyncio.Event()

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            stub = self._stub()
            if stub is None:
                await asyncio.sleep(_LOOK_EVERY)
                continue
            try:
                await self._session(stub)
            except grpc.RpcError as error:
                self._explain(failures.from_rpc_error(error))
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # So grpc says that the link was closed under the call.
            await asyncio.sleep(self._backoff.next())

    async def flush(self, seconds: float) -> None:
        """Reports all there is, and waits until it is stored, for at most so long."""
        try:
            async with asyncio.timeout(seconds):
                while self._stub() is not None and (self._kept or self._rows or len(self._sums)):
                    self._stored.clear()
                    self._early.set()
                    await self._stored.wait()
        except TimeoutError:
            log.info("stopping with usage that control has not stored")

    async def _session(self, stub: "RoutingServiceAsyncStub") -> None:
        """One stream, to its end."""
        call = stub.ReportOutcomes(metadata=self._metadata)
        writing = Tasks()
        try:
            first = await call.read()
            if not isinstance(first, ReportOutcomesResponse):
                return
            self._take(first)
            self._last_problem = ""
            self._backoff.reset()
            writing.start(self._write(call), "report outcomes")
            while isinstance(message := await call.read(), ReportOutcomesResponse):
                self._take(message)
        finally:
            # Who waits for a report to be stored looks again.
            self._stored.set()
            call.cancel()
            await writing.close()

    def _take(self, message: ReportOutcomesResponse) -> None:
        if message.HasField("report_interval"):
            self._interval = max(0.01, message.report_interval.ToNanoseconds() / 1e9)
        if bounds := message.histogram_bounds_seconds:
            self._rows += self._sums.measure(bounds)
        while self._kept and self._kept[0].sequence <= message.accepted:
            self._kept.popleft()
            self._stored.set()

    async def _write(self, call: "Call") -> None:
        try:
            for report in tuple(self._kept):
                await call.write(report)
            due = self._reported_at + self._interval
            while True:
                try:
                    async with asyncio.timeout(max(0.0, due - self._clock.now())):
                        await self._early.wait()
                except TimeoutError:
                    pass
                self._early.clear()
                due = self._clock.now() + self._interval
                await self._tell(call)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader learns why
        finally:
            call.cancel()

    async def _tell(self, call: "Call") -> None:
        """All there is to say. What has rows is kept."""
        now = self._clock.now()
        span = now - self._reported_at
        gauges = self._gauges()
        if len(self._kept) < _KEPT and not self._rows:
            self._rows = self._sums.take()
        if not self._rows or len(self._kept) >= _KEPT:
            await call.write(self._report((), span, gauges))
            return
        self._reported_at = now
        while self._rows and len(self._kept) < _KEPT:
            part, self._rows = self._rows[:_ROWS], self._rows[_ROWS:]
            report = self._report(part, span, gauges)
            self._kept.append(report)
            await call.write(report)

    def _report(self, rows: Sequence[Row], span: float, gauges: Gauges) -> ReportOutcomesRequest:
        self._sequence += 1
        message = ReportOutcomesRequest(
            gateway_id=self._identity.gateway_id,
            instance_id=self._identity.instance_id,
            sequence=self._sequence,
            report=usage_pb2.OutcomeReport(
                rows=map(_row, rows),
                routes=map(_route, gauges.routes),
                ejected_endpoints=gauges.ejected,
            ),
        )
        message.interval.FromNanoseconds(round(span * 1e9))
        return message

    def _explain(self, refused: Refused) -> None:
        # That control is away is said by the stream of routes.
        if refused.code is not grpc.StatusCode.UNAVAILABLE and refused.message != self._last_problem:
            self._last_problem = refused.message
            log.warning("usage can't be reported, and is kept: %s", refused.message)


def _route(gauge: RouteGauge) -> load_pb2.RouteLoad:
    return load_pb2.RouteLoad(
        model=gauge.model,
        operation=gauge.operation,  # type: ignore[arg-type]
        in_flight=gauge.in_flight,
        waiting=gauge.waiting,
    )


def _row(row: Row) -> usage_pb2.OutcomeRow:
    sums = usage_pb2.Outcomes(
        requests=row.requests,
        requests_succeeded=row.succeeded,
        requests_cancelled=row.cancelled,
        requests_unserved=row.unserved,
        attempts=max(0, row.attempts),
        attempts_connect_failed=row.connect,
        attempts_upstream_failed=row.upstream,
        attempts_timed_out=row.timeout,
        attempts_cut=row.cut,
        attempts_refused=row.refused,
        requests_with_tokens=row.with_tokens,
        prompt_tokens=row.prompt,
        cached_tokens=row.cached,
        completion_tokens=row.completion,
        prefill_tokens=row.prefill_tokens,
        prefill_seconds=row.prefill_seconds,
        decode_tokens=row.decode_tokens,
        decode_seconds=row.decode_seconds,
        cold_starts=row.cold_starts,
        cold_start_seconds=row.cold_seconds,
    )
    for histogram, counts in ((sums.first_token, row.first_token), (sums.duration, row.duration)):
        if any(counts):
            histogram.upper_bounds_seconds.extend(row.bounds)
            histogram.counts.extend(counts)
    return usage_pb2.OutcomeRow(
        key_id=row.key_id,
        model=row.model,
        operation=row.operation,  # type: ignore[arg-type]
        endpoint=row.endpoint,
        route_label=row.label,
        outcomes=sums,
    )
