"""Questions in a client's name, to a control that a test scripts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from gateway.core.questions import Absent, Away, Forbidden, Inquiry, Question, Wrong
from gateway.watch.answers import AskControl
from gateway.watch.usage import AskUsage
from geniehive.channels import CLIENT_KEY_ID, NODE_KEY, aio_channel
from geniehive.failures import Refused
from geniehive.v1 import failure_pb2
from geniehive.v1.benchmark_pb2 import BenchmarkSample
from geniehive.v1.registry_pb2 import Host
from geniehive.v1.registry_service_pb2 import HostView, ListBenchmarkSamplesResponse, ListHostsResponse
from geniehive.v1.registry_service_pb2_grpc import RegistryServiceStub
from geniehive.v1.routing_pb2 import Route
from geniehive.v1.routing_service_pb2 import ExplainRouteResponse, MatchRoutesResponse
from tests.support.scripted_control import ScriptedControl

PROOF = ((NODE_KEY, "ghn-1"),)


@pytest.fixture
async def control() -> AsyncIterator[ScriptedControl]:
    async with ScriptedControl() as made:
        yield made


@pytest.fixture
async def channel(control: ScriptedControl) -> AsyncIterator[grpc.aio.Channel]:
    async with aio_channel(control.address) as made:
        yield made


@pytest.fixture
def ask(channel: grpc.aio.Channel) -> AskControl:
    return AskControl(lambda: channel, PROOF)


async def test_a_list_in_a_clients_name(control: ScriptedControl, ask: AskControl) -> None:
    views = [HostView(host=Host(host_id=f"h{number}")) for number in range(40)]
    control.answer("ListHosts", lambda request: ListHostsResponse(hosts=views, next_page_token="more"))
    found = await ask(Inquiry("ListHosts", {"availability": "AVAILABILITY_BUSY", "labels": {"a": "b"}}), "k1")
    assert [view["host"]["host_id"] for view in found["hosts"]] == [f"h{number}" for number in range(40)]
    assert found["next_page_token"] == "more"
    (call,) = control.calls
    assert (call.request.availability, dict(call.request.labels)) == (2, {"a": "b"})
    assert (call.metadata[NODE_KEY], call.metadata[CLIENT_KEY_ID]) == ("ghn-1", "k1")
    assert call.time_remaining is not None
    assert call.time_remaining < 11
    await ask(Inquiry("ListHosts"), "")
    assert CLIENT_KEY_ID not in control.calls[-1].metadata


async def test_other_calls(control: ScriptedControl, ask: AskControl) -> None:
    candidate = MatchRoutesResponse.Candidate(model="coder", score=0.5)
    control.answer("MatchRoutes", lambda request: MatchRoutesResponse(candidates=[candidate]))
    control.answer("ExplainRoute", lambda request: ExplainRouteResponse(route=Route(model=request.model)))
    samples = [BenchmarkSample(sample_id="s")]
    control.answer("ListBenchmarkSamples", lambda request: ListBenchmarkSamplesResponse(samples=samples))
    found = await ask(Inquiry("MatchRoutes", {"tasks": ["a"], "operation": "OPERATION_CHAT"}), "k")
    assert (found["candidates"][0]["model"], found["candidates"][0]["kind"]) == ("coder", "unknown")
    found = await ask(Inquiry("ExplainRoute", {"model": "m"}), "k")
    assert (found["route"]["model"], found["candidates"]) == ("m", [])
    found = await ask(Inquiry("ListBenchmarkSamples"), "k")
    assert found["samples"][0]["correctness"] is None


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (failure_pb2.FAILURE_REASON_FIELD_INVALID, Wrong),
        (failure_pb2.FAILURE_REASON_NAME_AMBIGUOUS, Wrong),
        (failure_pb2.FAILURE_REASON_OPERATION_NOT_SERVED, Wrong),
        (failure_pb2.FAILURE_REASON_ROUTE_NOT_FOUND, Absent),
        (failure_pb2.FAILURE_REASON_OBJECT_NOT_FOUND, Absent),
        (failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED, Forbidden),
        (failure_pb2.FAILURE_REASON_SCOPE_MISSING, Forbidden),
        (failure_pb2.FAILURE_REASON_STORE_UNAVAILABLE, Away),
        (failure_pb2.FAILURE_REASON_NOT_SERVED, Away),
    ],
)
async def test_refusals(control: ScriptedControl, ask: AskControl, reason: Any, kind: type[Exception]) -> None:
    def refuse(request: object) -> None:
        raise Refused(reason, "in words", retry_after=2.5)

    control.answer("ListHosts", refuse)
    with pytest.raises(kind, match="in words") as raised:
        await ask(Inquiry("ListHosts"), "k")
    if isinstance(raised.value, Away):
        assert raised.value.retry_after == 2.5


async def test_what_does_not_fit_the_contract(ask: AskControl) -> None:
    for fields in ({"page_size": 2**40}, {"page_token": 7}, {"colour": "red"}, {"availability": "LIVELY"}):
        with pytest.raises(Wrong):
            await ask(Inquiry("ListHosts", fields), "k")


async def test_an_answer_that_is_too_large(control: ScriptedControl, ask: AskControl) -> None:
    views = [HostView(host=Host(host_id="h", display_name="x" * (5 << 20)))]
    control.answer("ListHosts", lambda request: ListHostsResponse(hosts=views))
    with pytest.raises(Wrong, match="by limit"):
        await ask(Inquiry("ListHosts"), "k")


async def test_while_control_is_away_nobody_waits() -> None:
    ask = AskControl(lambda: None, PROOF)
    with pytest.raises(Away, match="there is no connection to it"):
        await ask(Inquiry("ListHosts"), "k")


async def test_a_link_that_closes_under_a_question(
    control: ScriptedControl, ask: AskControl, channel: grpc.aio.Channel
) -> None:
    async def never(request: object) -> None:
        await asyncio.Event().wait()

    control.answer("ListHosts", never)
    asking = asyncio.create_task(ask(Inquiry("ListHosts"), "k"))
    while not control.calls:
        await asyncio.sleep(0.005)
    await channel.close()
    with pytest.raises(Away):
        await asking


async def test_so_may_it_under_a_question_about_usage(control: ScriptedControl, channel: grpc.aio.Channel) -> None:
    async def never(request: object) -> None:
        await asyncio.Event().wait()

    control.answer("QueryUsage", never)
    ask = AskUsage(lambda: RegistryServiceStub(channel), PROOF)
    now = datetime.now(UTC)
    asking = asyncio.create_task(ask(Question([], now, now), "k"))
    while not control.calls:
        await asyncio.sleep(0.005)
    await channel.close()
    with pytest.raises(Away):
        await asking


async def test_a_client_that_leaves_ends_its_question(control: ScriptedControl, ask: AskControl) -> None:
    left = asyncio.Event()

    async def never(request: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    control.answer("ListHosts", never)
    asking = asyncio.create_task(ask(Inquiry("ListHosts"), "k"))
    while not control.calls:
        await asyncio.sleep(0.005)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(5):
        await left.wait()
