"""ReportOutcomes, QueryUsage and the routes of WatchLoad, on a real server."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from geniehive.rules.histogram import BOUNDS
from geniehive.rules.identity import PeerKind
from geniehive.v1 import registry_service_pb2 as pb
from geniehive.v1 import routing_service_pb2 as routing
from geniehive.v1 import usage_pb2
from geniehive.v1.load_pb2 import RouteLoad
from geniehive.v1.registry_service_pb2 import UsageDimension as By
from geniehive.v1.request_pb2 import OPERATION_CHAT, OPERATION_EMBEDDINGS
from tests.support.cluster import service
from tests.support.control_server import AS_NODE, Control, Stream, as_, for_client, refused, running_control, until
from tests.support.fake_store import FakeStore

READ = as_("read")
KEY, MODEL, HOST = By.USAGE_DIMENSION_KEY, By.USAGE_DIMENSION_MODEL, By.USAGE_DIMENSION_HOST


def row(model: str = "m", endpoint: str = "endpoint/gpu-1/ollama/m", key: str = "k", **sums: Any) -> Any:
    return usage_pb2.OutcomeRow(
        key_id=key,
        model=model,
        operation=OPERATION_CHAT,
        endpoint=endpoint,
        route_label="m",
        outcomes=usage_pb2.Outcomes(**(sums or {"requests": 1})),
    )


def report(
    sequence: int, *rows: usage_pb2.OutcomeRow, instance: str = "1", gateway: str = "gw", **fields: Any
) -> routing.ReportOutcomesRequest:
    made = routing.ReportOutcomesRequest(
        gateway_id=gateway,
        instance_id=instance,
        sequence=sequence,
        report=usage_pb2.OutcomeReport(rows=rows, **fields),
    )
    made.interval.FromSeconds(5)
    return made


async def opened(control: Control, metadata: Any = AS_NODE) -> Stream:
    """A stream on which control has spoken."""
    stream = control.stream(control.routing.ReportOutcomes(metadata=metadata))
    first = await stream.answer()
    assert (first.report_interval.seconds, tuple(first.histogram_bounds_seconds), first.accepted) == (5, BOUNDS, 0)
    return stream


async def accepted(stream: Stream, sequence: int) -> None:
    while (answer := await stream.answer()).accepted < sequence:
        assert not answer.HasField("report_interval")
    assert answer.accepted == sequence


async def ask(control: Control, *by: Any, metadata: Any = READ, **fields: Any) -> list[tuple[list[str], Any]]:
    found = await control.registry.QueryUsage(pb.QueryUsageRequest(group_by=by, **fields), metadata=metadata)
    return [(list(row.values), row.outcomes) for row in found.rows]


async def requests(control: Control, *by: Any, **fields: Any) -> dict[tuple[str, ...], int]:
    return {tuple(values): sums.requests for values, sums in await ask(control, *by, **fields)}


async def test_what_gateways_report_adds_up() -> None:
    async with running_control() as control:
        assert await requests(control) == {(): 0}
        one, two = await opened(control), await opened(control)
        times = usage_pb2.Histogram(upper_bounds_seconds=BOUNDS, counts=[0, 2, *[0] * 15])
        full = row(
            requests=2, requests_succeeded=1, requests_cancelled=1, attempts=3, attempts_connect_failed=1,
            requests_with_tokens=1, prompt_tokens=10, cached_tokens=4, completion_tokens=20, duration=times,
            decode_seconds=0.5, decode_tokens=7,
        )  # fmt: skip
        await one.send(report(1, full, row("n", "endpoint/gpu-2/vllm/n", "other")))
        await one.send(report(2, full))
        await two.send(report(1, full, row("n", "", requests=5, requests_unserved=5), instance="2"))
        await accepted(one, 2)
        await accepted(two, 1)
        (((), total),) = await ask(control)
        assert (total.requests, total.requests_succeeded, total.requests_cancelled) == (12, 3, 3)
        assert (total.attempts, total.attempts_connect_failed) == (9, 3)
        assert (total.prompt_tokens, total.cached_tokens, total.completion_tokens) == (30, 12, 60)
        assert (total.decode_seconds, total.decode_tokens, total.requests_unserved) == (1.5, 21, 5)
        assert list(total.duration.counts) == [0, 6, *[0] * 15]
        assert tuple(total.duration.upper_bounds_seconds) == BOUNDS
        assert not total.HasField("first_token")
        assert await requests(control, KEY) == {("k",): 11, ("other",): 1}
        assert [values for values, _ in await ask(control, MODEL, HOST)] == [["m", "gpu-1"], ["n", ""], ["n", "gpu-2"]]
        every = [By.USAGE_DIMENSION_SERVICE, By.USAGE_DIMENSION_ENDPOINT, By.USAGE_DIMENSION_OPERATION]
        assert (await ask(control, *every))[0][0] == ["gpu-1/ollama", "endpoint/gpu-1/ollama/m", "OPERATION_CHAT"]


async def test_hours_and_days_are_times() -> None:
    async with running_control() as control:
        stream = await opened(control)
        before = datetime.now(UTC)
        await stream.send(report(1, row()))
        await accepted(stream, 1)
        ((hour, day), _), *_ = await ask(control, By.USAGE_DIMENSION_HOUR, By.USAGE_DIMENSION_DAY)
        found = datetime.fromisoformat(hour)
        assert hour.endswith(":00:00Z")
        assert day == hour[:10] + "T00:00:00Z"
        assert abs((before - found).total_seconds() - 1800) <= 1810
        only = [pb.QueryUsageRequest.Filter(dimension=By.USAGE_DIMENSION_HOUR, value=hour)]
        assert await requests(control, filters=only) == {(): 1}
        only.append(pb.QueryUsageRequest.Filter(dimension=By.USAGE_DIMENSION_DAY, value="2001-01-01T00:00:00Z"))
        assert await requests(control, filters=only) == {(): 0}


async def test_only_whole_hours_are_summed() -> None:
    async with running_control() as control:
        stream = await opened(control)
        await stream.send(report(1, row()))
        await accepted(stream, 1)
        ((hour,),) = await requests(control, By.USAGE_DIMENSION_HOUR)
        start = int(datetime.fromisoformat(hour).timestamp())

        async def between(since: int, until: int) -> int:
            asked = pb.QueryUsageRequest()
            asked.since_time.FromSeconds(start + since)
            asked.until_time.FromSeconds(start + until)
            answer = await control.registry.QueryUsage(asked, metadata=READ)
            return int(answer.rows[0].outcomes.requests)

        assert await between(3599, 3599) == 1, "since is rounded down, until up"
        assert await between(-10, 1) == 1
        assert await between(-3600, 0) == 0
        assert await between(3600, 7200) == 0


async def test_filters_must_all_match() -> None:
    async with running_control() as control:
        stream = await opened(control)
        await stream.send(report(1, row("a"), row("b", key="k2"), row("b")))
        of = pb.QueryUsageRequest.Filter
        only_b = of(dimension=MODEL, value="b")
        assert await requests(control, KEY, filters=[only_b]) == {("k",): 1, ("k2",): 1}
        assert await requests(control, filters=[only_b, of(dimension=KEY, value="k2")]) == {(): 1}
        by_operation = By.USAGE_DIMENSION_OPERATION
        assert await requests(control, filters=[of(dimension=by_operation, value="OPERATION_CHAT")]) == {(): 3}
        assert await requests(control, filters=[of(dimension=by_operation, value="OPERATION_MESSAGES")]) == {(): 0}


async def test_pages_begin_with_most_requests() -> None:
    async with running_control() as control:
        stream = await opened(control)
        await stream.send(report(1, *(row(f"m{n}", requests=1 + n // 2) for n in range(7))))
        request = pb.QueryUsageRequest(group_by=[MODEL], page_size=3)
        found: list[str] = []
        sizes: list[int] = []
        while True:
            answer = await control.registry.QueryUsage(request, metadata=READ)
            sizes.append(len(answer.rows))
            found += [row.values[0] for row in answer.rows]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        assert found == ["m6", "m4", "m5", "m2", "m3", "m0", "m1"]
        assert sizes == [3, 3, 1]
        request.group_by.append(KEY)
        error = await refused(control.registry.QueryUsage(request, metadata=READ))
        assert error.metadata == {"field": "page_token"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "?"}, "page_token"),
        ({"group_by": [0]}, "group_by"),
        ({"group_by": [99]}, "group_by"),
        ({"filters": [pb.QueryUsageRequest.Filter(value="x")]}, "filters.dimension"),
        ({"filters": [{"dimension": By.USAGE_DIMENSION_OPERATION, "value": "x"}]}, "filters.value"),
        ({"filters": [{"dimension": By.USAGE_DIMENSION_HOUR, "value": "yesterday"}]}, "filters.value"),
        ({"since_time": {"seconds": 7200}, "until_time": {"seconds": 3600}}, "since_time"),
    ],
)
async def test_a_question_that_cannot_be_answered(fields: dict[str, Any], field: str) -> None:
    async with running_control() as control:
        error = await refused(control.registry.QueryUsage(pb.QueryUsageRequest(**fields), metadata=READ))
        assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": field})


async def test_a_sequence_of_an_instance_counts_once() -> None:
    async with running_control() as control:
        stream = await opened(control)
        for _ in range(2):
            await stream.send(report(1, row()))
            await accepted(stream, 1)
        # After a break it comes by another stream.
        again = await opened(control)
        await again.send(report(1, row()))
        await accepted(again, 1)
        await again.send(report(2, row()))
        await accepted(again, 2)
        await again.send(report(1, row(), instance="2"))
        await accepted(again, 1)
        assert await requests(control) == {(): 3}


async def test_what_was_not_stored_comes_again_after_a_restart_and_what_was_does_not_count_twice() -> None:
    store = FakeStore()
    async with running_control(store) as control:
        stream = await opened(control)
        await stream.send(report(1, row()))
        await accepted(stream, 1)
        store.failing = "the disk is full"
        await stream.send(report(2, row()))
        await until(lambda: control.hub.registry.store_failure is not None)
        assert stream.silent, "accepted is what is stored"
    # Killed: what it held is gone, what is in the database stays.
    store.failing = None
    async with running_control(store) as control:
        stream = await opened(control)
        await stream.send(report(1, row()))
        await stream.send(report(2, row()))
        await accepted(stream, 2)
        assert await requests(control) == {(): 2}


async def test_a_database_that_is_away() -> None:
    store = FakeStore()
    async with running_control(store) as control:
        store.failing = "locked"
        stream = await opened(control)
        await stream.send(report(1, row()))
        error = await refused(control.registry.QueryUsage(pb.QueryUsageRequest(), metadata=READ))
        assert error.name == "STORE_UNAVAILABLE"
        assert stream.silent
        store.failing = None
        await accepted(stream, 1)
        assert await requests(control) == {(): 1}


async def test_an_idle_gateway_costs_no_writes() -> None:
    async with running_control() as control:
        stream = await opened(control)
        for sequence in (1, 2, 3):
            await stream.send(report(sequence))
            await accepted(stream, sequence)
        assert "add_usage" not in control.store.steps


async def test_reports_are_written_together() -> None:
    async with running_control() as control:
        stream = await opened(control)
        for sequence in range(1, 101):
            await stream.send(report(sequence, row()))
        await accepted(stream, 100)
        assert control.store.steps.count("add_usage") <= 5
        assert await requests(control) == {(): 100}


async def test_nonsense_is_counted_as_far_as_it_can_be() -> None:
    async with running_control() as control:
        stream = await opened(control)
        bad = row(
            "a\0b", requests=2**64 - 1, decode_seconds=float("nan"), prefill_seconds=float("inf"),
            cold_start_seconds=-1.0, duration=usage_pb2.Histogram(counts=[1] * 40),
            first_token=usage_pb2.Histogram(upper_bounds_seconds=[2.0, 1.0], counts=[1, 2, 3]),
        )  # fmt: skip
        await stream.send(report(1, bad))
        await accepted(stream, 1)
        (((model,), sums),) = await ask(control, MODEL)
        assert model == "a\ufffdb"
        assert 0 < sums.requests < 2**63
        assert (sums.decode_seconds, sums.cold_start_seconds) == (0, 0)


async def test_histograms_of_other_bounds_are_taken_over() -> None:
    async with running_control() as control:
        stream = await opened(control)
        times = usage_pb2.Histogram(upper_bounds_seconds=[0.02, 1.0], counts=[1, 2, 3])
        await stream.send(report(1, row(requests=6, duration=times)))
        ((_, sums),) = await ask(control)
        assert sum(sums.duration.counts) == 6
        assert sums.duration.counts[-1] == 3


async def test_routes_are_summed_over_gateways_and_leave_with_them() -> None:
    async with running_control() as control:
        one, two = await opened(control), await opened(control)
        load = RouteLoad(model="m", operation=OPERATION_CHAT, in_flight=2, waiting=1)
        other = RouteLoad(model="a", operation=OPERATION_EMBEDDINGS, in_flight=1)
        await one.send(report(1, routes=[load, other]))
        await two.send(report(1, instance="2", routes=[load]))
        request = pb.WatchLoadRequest()
        request.interval.FromMilliseconds(100)
        # Not narrowed by hosts.
        request.host_ids.append("nobody")
        stream = control.stream(control.registry.WatchLoad(request, metadata=READ))

        async def shows(*wanted: tuple[str, int, int]) -> None:
            async with asyncio.timeout(5):
                while [(r.model, r.in_flight, r.waiting) for r in (await stream.answer()).routes] != list(wanted):
                    pass

        await shows(("a", 1, 0), ("m", 4, 2))
        await one.send(report(2, routes=[load]))
        await shows(("m", 4, 2))
        await two.close()
        await shows(("m", 2, 1))
        # A newer stream of the same process takes over, whichever ends first.
        newer = await opened(control)
        await newer.send(report(3, routes=[load]))
        await accepted(newer, 3)
        await one.close()
        await shows(("m", 2, 1))
        await newer.close()
        await shows()


async def test_health_shows_what_gateways_leave_out() -> None:
    async with running_control() as control:
        await control.gateway()
        stream = await opened(control)
        await stream.send(report(1, ejected_endpoints=["endpoint/b/s/m", "endpoint/a/s/m"]))
        await accepted(stream, 1)

        async def ejected() -> list[str]:
            answer = await control.registry.GetClusterHealth(pb.GetClusterHealthRequest(), metadata=READ)
            return list(answer.health.gateways[0].ejected_endpoints)

        assert await ejected() == ["endpoint/a/s/m", "endpoint/b/s/m"]
        await stream.send(report(2))
        await accepted(stream, 2)
        assert await ejected() == []


async def test_streams_of_reports_end_when_control_stops() -> None:
    async with running_control() as control:
        stream = await opened(control)
        stopping = asyncio.create_task(control.server.stop(2.0))
        assert (await stream.ending()).name == "CONTROL_UNAVAILABLE"
        await stopping


async def test_who_may_report_and_ask() -> None:
    async with running_control() as control:
        for metadata in (as_("admin"), READ, for_client("admin")):
            error = await control.stream(control.routing.ReportOutcomes(metadata=metadata)).ending()
            assert error.name == "SCOPE_MISSING"
        for metadata in (as_("infer"), for_client("infer")):
            error = await refused(control.registry.QueryUsage(pb.QueryUsageRequest(), metadata=metadata))
            assert (error.name, error.metadata["needs"]) == ("SCOPE_MISSING", "gateway or read")
        for metadata in (READ, as_("admin"), for_client("read"), AS_NODE):
            assert await ask(control, metadata=metadata)


async def test_a_gateway_reports_for_itself_alone_and_only_while_it_is_one() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", PeerKind.GATEWAY)
        member = joined[PeerKind.GATEWAY]
        stream = member.reports()
        await stream.answer()
        await stream.send(report(1, row(), gateway="gpu-1"))
        await accepted(stream, 1)
        other = member.reports()
        await other.answer()
        await other.send(report(1, row(), gateway="gpu-2"))
        assert (await other.ending()).name == "NOT_YOURS"
        await control.hub.revoke_peer(PeerKind.GATEWAY, "gpu-1", "test")
        await stream.send(report(2, row(), gateway="gpu-1"))
        assert (await stream.ending()).name == "CREDENTIAL_REVOKED"
        assert await requests(control) == {(): 1}


FAST = {
    "requests": 5, "requests_succeeded": 5, "requests_with_tokens": 5, "completion_tokens": 1000, "decode_tokens": 1000,
    "decode_seconds": 25.0, "prefill_tokens": 5000, "prefill_seconds": 5.0, "cold_starts": 1, "cold_start_seconds": 8.0,
}  # fmt: skip
LEARNED = {"prefill_tokens_per_second": 1000.0, "decode_tokens_per_second": 40.0, "load_seconds": 8.0}


async def speed(control: Control) -> dict[str, float]:
    """Of the endpoint in the table, and of the service's view: these are the same."""
    resolved = await control.routing.Resolve(routing.ResolveRequest(model="m"), metadata=READ)
    (endpoint,) = [r.endpoint for r in resolved.resources if r.HasField("endpoint")]
    view = await control.registry.GetService(pb.GetServiceRequest(service="gpu-1/ollama"), metadata=READ)
    shown = view.service.speeds
    assert endpoint.HasField("speed") == ("m" in shown)
    if endpoint.HasField("speed"):
        assert endpoint.speed == shown["m"]
    return {field.name: value for field, value in endpoint.speed.ListFields()}


async def test_speeds_are_learned_from_reports_and_outlive_a_restart() -> None:
    async with running_control() as control:
        await control.node("gpu-1", service("gpu-1/ollama", "m"))
        gateway = await control.gateway()
        assert await speed(control) == {}
        stream = await opened(control)
        told = report(1, row(**FAST), row("x", "endpoint/gpu-1/ollama/gone", **FAST))
        await stream.send(told)
        await accepted(stream, 1)
        assert await speed(control) == LEARNED
        while gateway.table["endpoint/gpu-1/ollama/m"].content.speed is None:
            await gateway.apply()
        assert list(control.hub.registry.figures) == ["endpoint/gpu-1/ollama/m"]
        # The same report once more counts nothing.
        before = control.hub.registry.figures.decode("endpoint/gpu-1/ollama/m")
        again = await opened(control)
        await again.send(told)
        await accepted(again, 1)
        assert control.hub.registry.figures.decode("endpoint/gpu-1/ollama/m") == before
        held = {name: resource.version for name, resource in gateway.table.items()}
        store = control.store
    async with running_control(store) as control:
        # Before its node is there again.
        assert await speed(control) == LEARNED
        gateway = control.watch()
        await gateway.subscribe(held)
        (part,) = await gateway.apply()
        assert (list(part.changed), list(part.removed)) == ([], [])


async def test_a_watcher_of_services_hears_of_speeds() -> None:
    async with running_control() as control:
        await control.node("gpu-1", service("gpu-1/ollama", "m"))
        call = control.registry.WatchRegistry(pb.WatchRegistryRequest(kinds=[pb.OBJECT_KIND_SERVICE]), metadata=READ)
        watch = control.stream(call)
        while not (await watch.answer()).HasField("synced"):
            pass
        stream = await opened(control)
        await stream.send(report(1, row(**FAST)))
        changed = (await watch.answer()).changed.service
        assert {name: found.decode_tokens_per_second for name, found in changed.speeds.items()} == {"m": 40.0}
