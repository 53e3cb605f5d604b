"""Reports of outcomes: to a control that a test plays, and to the real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.outcome import Ending, Failed, Outcome, Tokens
from gateway.core.sums import Sums
from gateway.watch.outcomes import Gauges, OutcomeReports, RouteGauge
from gateway.watch.stream import Identity
from geniehive.channels import aio_channel
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import SystemClock
from geniehive.kit.tasks import Tasks
from geniehive.rules.histogram import BOUNDS
from geniehive.rules.operations import Operation
from geniehive.v1 import registry_service_pb2 as registry
from geniehive.v1.failure_pb2 import FAILURE_REASON_CONTROL_UNAVAILABLE
from geniehive.v1.routing_service_pb2 import ReportOutcomesRequest, ReportOutcomesResponse
from geniehive.v1.routing_service_pb2_grpc import RoutingServiceStub
from tests.support.control_server import AS_NODE, as_, running_control, until
from tests.support.fake_store import FakeStore
from tests.unit.gateway.watch.fake_routing import FakeRouting, ReportStream


def outcome(model: str = "m", **fields: Any) -> Outcome:
    made: dict[str, Any] = {"ending": Ending.OK, "status": 200, "endpoint": "endpoint/a/s/m", "attempts": 1}
    return Outcome(request_id="r", key_id="k", operation=Operation.CHAT, model=model, label="t", **(made | fields))


class Reporting:
    """A gateway's reports, to a control that is there."""

    def __init__(self, stub: Any, tasks: Tasks) -> None:
        self.stub = stub
        self.sums = Sums()
        self.gauges = Gauges()
        self.reports = OutcomeReports(
            lambda: self.stub,
            AS_NODE,
            Identity(gateway_id="gw", instance_id="i1", version="1"),
            self.sums,
            lambda: self.gauges,
            SystemClock(),
            Backoff(0.01, 0.02),
        )
        self.run = tasks.start(self.reports.run(), "reports")


@asynccontextmanager
async def reporting(address: str) -> AsyncIterator[Reporting]:
    tasks = Tasks()
    async with aio_channel(address) as channel:
        yield Reporting(RoutingServiceStub(channel), tasks)
        assert not tasks.failed.done()
        await tasks.close()


def words(interval: float = 0.02, bounds: tuple[float, ...] = BOUNDS) -> ReportOutcomesResponse:
    """What control says first."""
    made = ReportOutcomesResponse(histogram_bounds_seconds=bounds)
    made.report_interval.FromNanoseconds(round(interval * 1e9))
    return made


async def with_rows(stream: ReportStream) -> ReportOutcomesRequest:
    """The next report that has rows."""
    async with asyncio.timeout(5):
        while not (message := await stream.heard()).report.rows:
            pass
    return message


async def test_control_speaks_first() -> None:
    async with FakeRouting() as control, reporting(control.address) as gateway:
        gateway.sums.add(outcome())
        stream = await control.reports()
        with pytest.raises(TimeoutError):
            await stream.heard(0.2)
        stream.say(words())
        message = await with_rows(stream)
        assert (message.gateway_id, message.instance_id, message.sequence) == ("gw", "i1", 1)
        assert message.interval.ToNanoseconds() > 0
        assert stream.metadata["x-geniehive-node-key"] == AS_NODE[0][1]


async def test_a_row_says_what_was_counted() -> None:
    async with FakeRouting() as control, reporting(control.address) as gateway:
        tokens = Tokens(prompt=10, completion=20, cached=3)
        gateway.sums.add(outcome(seconds=0.3, first=0.02, tokens=tokens, attempts=2,
                                 failed=(Failed("endpoint/b/s/m", "connect"),), prefill=(7, 0.125),
                                 decode=(20, 0.25), cold=1.5))  # fmt: skip
        gateway.sums.add(outcome(seconds=1000.0, ending=Ending.CANCELLED))
        stream = await control.reports()
        stream.say(words())
        rows = {row.endpoint: row for row in (await with_rows(stream)).report.rows}
        own = rows["endpoint/a/s/m"]
        assert (own.key_id, own.model, own.operation, own.route_label) == ("k", "m", Operation.CHAT, "t")
        sums = own.outcomes
        assert (sums.requests, sums.requests_succeeded, sums.requests_cancelled, sums.attempts) == (2, 1, 1, 2)
        assert (sums.requests_with_tokens, sums.prompt_tokens, sums.cached_tokens) == (1, 10, 3)
        assert sums.completion_tokens == 20
        assert (sums.prefill_tokens, sums.prefill_seconds) == (7, 0.125)
        assert (sums.decode_tokens, sums.decode_seconds) == (20, 0.25)
        assert (sums.cold_starts, sums.cold_start_seconds) == (1, 1.5)
        assert tuple(sums.duration.upper_bounds_seconds) == BOUNDS
        assert [n for n, count in enumerate(sums.duration.counts) if count] == [5, len(BOUNDS)]
        assert list(sums.first_token.counts)[1] == 1
        failed = rows["endpoint/b/s/m"].outcomes
        assert (failed.requests, failed.attempts, failed.attempts_connect_failed) == (0, 1, 1)
        assert not failed.HasField("duration")


async def test_gauges_are_in_every_report() -> None:
    async with FakeRouting() as control, reporting(control.address) as gateway:
        gateway.gauges = Gauges([RouteGauge("m", Operation.CHAT, 2, 1)], ["endpoint/b/s/m"])
        stream = await control.reports()
        stream.say(words())
        report = (await stream.heard()).report
        assert [(r.model, r.operation, r.in_flight, r.waiting) for r in report.routes] == [("m", 1, 2, 1)]
        assert list(report.ejected_endpoints) == ["endpoint/b/s/m"]
        gateway.gauges = Gauges()
        while (await stream.heard()).report.routes:
            pass


async def test_what_control_has_not_stored_is_sent_again_on_the_next_stream() -> None:
    async with FakeRouting() as control, reporting(control.address) as gateway:
        stream = await control.reports()
        stream.say(words())
        sent = []
        for model in "abc":
            gateway.sums.add(outcome(model))
            sent.append(await with_rows(stream))
        stream.say(ReportOutcomesResponse(accepted=sent[0].sequence))
        gateway.sums.add(outcome("d"))
        sent.append(await with_rows(stream))
        stream.end(Refused(FAILURE_REASON_CONTROL_UNAVAILABLE, "stopping"))
        stream = await control.reports()
        stream.say(words())
        assert [await stream.heard() for _ in range(3)] == sent[1:], "as they were, in their order"
        gateway.sums.add(outcome("e"))
        assert (await with_rows(stream)).sequence > sent[-1].sequence


async def test_reports_are_not_queued_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.watch.outcomes._KEPT", 3)
    async with FakeRouting() as control, reporting(control.address) as gateway:
        stream = await control.reports()
        stream.say(words())
        for _ in range(3):
            gateway.sums.add(outcome())
            last = await with_rows(stream)
        for _ in range(50):
            gateway.sums.add(outcome())
        gateway.gauges = Gauges([RouteGauge("m", Operation.CHAT, 2)])
        while not (message := await stream.heard()).report.routes:
            pass
        assert not message.report.rows, "what is under way is still told"
        assert len(gateway.sums) == 1
        stream.say(ReportOutcomesResponse(accepted=last.sequence))
        (row,) = (await with_rows(stream)).report.rows
        assert row.outcomes.requests == 50, "added up, nothing lost"


async def test_many_rows_are_several_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.watch.outcomes._ROWS", 4)
    async with FakeRouting() as control, reporting(control.address) as gateway:
        for number in range(10):
            gateway.sums.add(outcome(f"m{number}"))
        stream = await control.reports()
        stream.say(words())
        reports = [await with_rows(stream) for _ in range(3)]
        assert [len(message.report.rows) for message in reports] == [4, 4, 2]
        assert [message.sequence for message in reports] == [1, 2, 3]


async def test_other_bounds_and_another_interval() -> None:
    async with FakeRouting() as control, reporting(control.address) as gateway:
        gateway.sums.add(outcome(seconds=0.3))
        stream = await control.reports()
        stream.say(words(bounds=(1.0, 2.0)))
        (row,) = (await with_rows(stream)).report.rows
        assert tuple(row.outcomes.duration.upper_bounds_seconds) == BOUNDS, "counted before control spoke"
        gateway.sums.add(outcome(seconds=1.5))
        (row,) = (await with_rows(stream)).report.rows
        assert tuple(row.outcomes.duration.upper_bounds_seconds) == (1.0, 2.0)
        assert list(row.outcomes.duration.counts) == [0, 1, 0]
        stream.say(words(3600.0))
        with pytest.raises(TimeoutError):
            while True:
                await stream.heard(0.3)


async def test_the_last_report_is_not_waited_for_longer_than_it_takes() -> None:
    async with FakeRouting() as control, reporting(control.address) as gateway:
        stub, gateway.stub = gateway.stub, None
        gateway.sums.add(outcome())
        async with asyncio.timeout(2):
            await gateway.reports.flush(5.0)  # control is away: at once
        gateway.stub = stub
        stream = await control.reports()
        stream.say(words(3600.0))
        flushing = asyncio.create_task(gateway.reports.flush(5.0))
        message = await with_rows(stream)
        await asyncio.sleep(0)
        assert not flushing.done()
        stream.say(ReportOutcomesResponse(accepted=message.sequence))
        await flushing
        gateway.sums.add(outcome())
        await gateway.reports.flush(0.05)
        gateway.sums.add(outcome())
        flushing = asyncio.create_task(gateway.reports.flush(5.0))
        await with_rows(stream)
        gateway.stub = None
        stream.end()
        async with asyncio.timeout(2):
            await flushing


async def requests(control: Any) -> int:
    answer = await control.registry.QueryUsage(registry.QueryUsageRequest(), metadata=as_("read"))
    return int(answer.rows[0].outcomes.requests)


async def test_over_restarts_of_a_real_control_everything_counts_once() -> None:
    store = FakeStore()
    asked = 0
    tasks = Tasks()
    gateway = Reporting(None, tasks)
    for turn in range(4):
        async with running_control(store, report_interval=0.1) as control:
            gateway.stub = RoutingServiceStub(control.channel)
            # At times the database takes nothing before the end, at times it does.
            store.failing = "the disk is full" if turn % 2 == 0 else None
            for _ in range(20):
                gateway.sums.add(outcome())
                asked += 1
                await asyncio.sleep(0.01)
            await until(lambda: len(gateway.sums) == 0)
            gateway.stub = None
        store.failing = None
    async with running_control(store, report_interval=0.1) as control:
        gateway.stub = RoutingServiceStub(control.channel)
        await gateway.reports.flush(5.0)
        assert await requests(control) == asked
        await tasks.close()


async def test_two_gateways_add_up() -> None:
    async with (
        running_control(report_interval=0.1) as control,
        reporting(control.address) as one,
        reporting(control.address) as two,
    ):
        two.reports._identity = Identity(gateway_id="gw", instance_id="i2", version="1")
        for gateway in (one, two):
            gateway.sums.add(outcome())
            await gateway.reports.flush(5.0)
        assert await requests(control) == 2
