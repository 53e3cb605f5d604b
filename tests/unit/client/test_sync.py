"""The synchronous client on grpcio-testing, and its watches on a real port."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

import grpc
import grpc_testing
import pytest
from google.protobuf.descriptor import MethodDescriptor

import geniehive
from geniehive import failures
from geniehive.client import Changed, Removed, Resync, Synced, SyncHive
from geniehive.client.calls import SERVICES
from geniehive.failures import Refused
from geniehive.v1.admin_service_pb2 import CreateClientKeyRequest, CreateClientKeyResponse
from geniehive.v1.failure_pb2 import FailureReason
from geniehive.v1.registry_pb2 import Host
from geniehive.v1.registry_service_pb2 import (
    HostView,
    ListBenchmarkSamplesResponse,
    ListHostsRequest,
    ListHostsResponse,
    ObjectKind,
    WatchLoadResponse,
    WatchRegistryResponse,
)
from geniehive.v1.routing_pb2 import Route
from geniehive.v1.routing_service_pb2 import ExplainRouteResponse, ListRoutesResponse, MatchRoutesResponse
from tests.support.scripted_control import ScriptedControl

T = TypeVar("T")
SYNCED = WatchRegistryResponse(synced=WatchRegistryResponse.Synced())
GONE = Refused(FailureReason.FAILURE_REASON_CONTROL_UNAVAILABLE, "stopping", retry_after=0.01)


def method(name: str) -> MethodDescriptor:
    return next(m for _, service in SERVICES.values() for m in service.methods if m.name == name)


def host(name: str) -> WatchRegistryResponse:
    return WatchRegistryResponse(changed=WatchRegistryResponse.Object(host=HostView(host=Host(host_id=name))))


def terminate(rpc: Any, error: Refused | None, *response: object) -> None:
    if error is None:
        rpc.terminate(*response, (), grpc.StatusCode.OK, "")
    else:
        details = failures.to_status(error).trailing_metadata
        rpc.terminate(*[None for _ in response], details, error.code, error.message)


class Bench:
    """A client on a channel that the test serves."""

    def __init__(self) -> None:
        services = [service for _, service in SERVICES.values()]
        self.channel = grpc_testing.channel(services, grpc_testing.strict_real_time())

    def start(self, work: Callable[[SyncHive], T]) -> "Future[T]":
        done: Future[T] = Future()

        def run() -> None:
            try:
                with geniehive.connect_sync("127.0.0.1:8801", key="gh-test", channel=self.channel) as hive:
                    done.set_result(work(hive))
            except BaseException as error:  # noqa: BLE001 - raised again by the test
                done.set_exception(error)

        # A daemon, so that a test that failed does not wait for it.
        Thread(target=run, daemon=True).start()
        return done


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_call_carries_its_key_and_gives_the_answer(bench: Bench) -> None:
    asked = bench.start(lambda hive: hive.registry.ListHosts(ListHostsRequest(page_size=7)))
    metadata, request, rpc = bench.channel.take_unary_unary(method("ListHosts"))
    assert ("authorization", "Bearer gh-test") in metadata
    assert request.page_size == 7
    terminate(rpc, None, ListHostsResponse())
    assert asked.result(5) == ListHostsResponse()


def test_a_read_is_tried_again_and_a_write_is_not(bench: Bench) -> None:
    asked = bench.start(lambda hive: hive.registry.ListHosts(ListHostsRequest()))
    for error in (GONE, None):
        _, _, rpc = bench.channel.take_unary_unary(method("ListHosts"))
        terminate(rpc, error, ListHostsResponse())
    asked.result(5)
    written = bench.start(lambda hive: hive.admin.CreateClientKey(CreateClientKeyRequest()))
    _, _, rpc = bench.channel.take_unary_unary(method("CreateClientKey"))
    terminate(rpc, GONE, CreateClientKeyResponse())
    with pytest.raises(Refused, match="stopping") as caught:
        written.result(5)
    assert caught.value.name == "CONTROL_UNAVAILABLE"


def test_lists_go_through_all_pages(bench: Bench) -> None:
    asked = bench.start(lambda hive: [route.model for route in hive.list_routes()])
    for name, token in (("a", "next"), ("b", "")):
        _, request, rpc = bench.channel.take_unary_unary(method("ListRoutes"))
        assert request.page_token == ("" if name == "a" else "next")
        terminate(rpc, None, ListRoutesResponse(routes=[Route(model=name)], next_page_token=token))
    assert asked.result(5) == ["a", "b"]


def test_questions_about_routes(bench: Bench) -> None:
    asked = bench.start(lambda hive: (hive.match("code", limit=1), hive.explain("m"), hive.list_benchmarks("m")))
    candidate = MatchRoutesResponse.Candidate(model="coder")
    _, request, rpc = bench.channel.take_unary_unary(method("MatchRoutes"))
    assert (list(request.tasks), request.limit) == (["code"], 1)
    terminate(rpc, None, MatchRoutesResponse(candidates=[candidate]))
    _, request, rpc = bench.channel.take_unary_unary(method("ExplainRoute"))
    explained = ExplainRouteResponse(route=Route(model=request.model))
    terminate(rpc, None, explained)
    _, request, rpc = bench.channel.take_unary_unary(method("ListBenchmarkSamples"))
    assert request.asset_id == "m"
    terminate(rpc, None, ListBenchmarkSamplesResponse())
    assert asked.result(5) == ([candidate], explained, [])


def test_a_watch_goes_on_after_a_break(bench: Bench) -> None:
    def follow(hive: SyncHive) -> list[Any]:
        events = []
        for event in hive.watch([ObjectKind.OBJECT_KIND_HOST]):
            events.append(event)
            if event == Synced(first=False):
                break
        return events

    seen = bench.start(follow)
    _, request, rpc = bench.channel.take_unary_stream(method("WatchRegistry"))
    assert list(request.kinds) == [ObjectKind.OBJECT_KIND_HOST]
    for message in (host("a"), host("b"), SYNCED):
        rpc.send_response(message)
    terminate(rpc, None)  # an error would overtake the messages on this channel
    _, _, rpc = bench.channel.take_unary_stream(method("WatchRegistry"))
    for message in (host("b"), SYNCED):
        rpc.send_response(message)
    kinds = [type(event) for event in seen.result(5)]
    assert kinds == [Changed, Changed, Synced, Resync, Removed, Synced]


def test_a_watch_that_control_refuses_ends(bench: Bench) -> None:
    seen = bench.start(lambda hive: list(hive.watch()))
    _, _, rpc = bench.channel.take_unary_stream(method("WatchRegistry"))
    terminate(rpc, Refused(FailureReason.FAILURE_REASON_CREDENTIAL_REFUSED, "unknown key"))
    with pytest.raises(Refused, match="unknown key"):
        seen.result(5)


@pytest.fixture
async def control() -> AsyncIterator[ScriptedControl]:
    async with ScriptedControl() as made:
        yield made


async def test_over_a_real_port(control: ScriptedControl) -> None:
    control.answer("ListHosts", lambda request: ListHostsResponse(hosts=[HostView(host=Host(host_id="a"))]))

    def work() -> list[str]:
        with geniehive.connect_sync(control.address) as hive:
            return [found.host.host_id for found in hive.list_hosts()]

    assert await asyncio.to_thread(work) == ["a"]
    assert control.calls[0].time_remaining == pytest.approx(10, abs=1)


async def test_a_watch_outlives_control_and_may_be_closed_from_elsewhere(control: ScriptedControl) -> None:
    with geniehive.connect_sync(control.address) as hive:
        watch = hive.watch()
        waiting = asyncio.create_task(asyncio.to_thread(next, watch))
        (await control.stream()).send(host("a"))
        assert isinstance(await waiting, Changed)
        waiting = asyncio.create_task(asyncio.to_thread(next, watch))
        await control.stop()
        assert isinstance(await waiting, Resync)
        ending = asyncio.create_task(asyncio.to_thread(list, watch))
        await control.start()
        stream = await control.stream()
        watch.close()
        async with asyncio.timeout(5):
            assert await ending == []
            await stream.gone.wait()


async def test_a_stream_that_falls_silent_counts_as_broken(control: ScriptedControl) -> None:
    with geniehive.connect_sync(control.address) as hive, hive.watch(silence=0.1) as watch:
        event = await asyncio.to_thread(next, watch)
        assert isinstance(event, Resync)
        assert "nothing for 0.1 s" in event.cause.message


async def test_load_is_told_whole(control: ScriptedControl) -> None:
    with geniehive.connect_sync(control.address) as hive:
        waiting = asyncio.create_task(asyncio.to_thread(next, hive.watch_load(0.25)))
        stream = await control.stream()
        assert stream.call.request.interval.ToMilliseconds() == 250
        stream.send(WatchLoadResponse())
        assert await waiting == WatchLoadResponse()
