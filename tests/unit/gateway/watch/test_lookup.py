import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.plan import Plan
from gateway.watch.lookup import REMEMBERED_FOR, NameLookUp
from geniehive.channels import aio_channel
from geniehive.failures import Refused
from geniehive.kit.tasks import Tasks
from geniehive.rules.identity import relay_name
from geniehive.rules.model import Relay, Resource, Route, Way
from geniehive.rules.operations import Operation
from geniehive.v1 import failure_pb2
from geniehive.v1.routing_service_pb2_grpc import RoutingServiceStub
from tests.unit.gateway.builders import endpoint, resource, route, served, table, until, upstream
from tests.unit.gateway.watch.fake_routing import FakeRouting

UNKNOWN = Refused(failure_pb2.FAILURE_REASON_ROUTE_NOT_FOUND, "no such model")


class ManualClock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


class Asking:
    def __init__(self, control: FakeRouting, stub: Any, tasks: Tasks) -> None:
        self.control = control
        self.clock = ManualClock()
        self.stub = stub
        self.look_up = NameLookUp(lambda: self.stub, (("x-geniehive-node-key", "n"),), table(), self.clock, tasks)


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    tasks = Tasks()
    async with FakeRouting() as control, aio_channel(control.address) as channel:
        yield Asking(control, RoutingServiceStub(channel), tasks)
        await tasks.close()


def refuse(_: object) -> Any:
    raise UNKNOWN


async def test_a_name_that_control_knows() -> None:
    async with asking() as a:
        a.control.resolve = lambda request: served(request.model, a="http://x:1")
        table = await a.look_up("m", "k7")
        assert table is not None
        assert isinstance(table.find("m", Operation.CHAT), Plan)
        model, metadata = a.control.resolved[0]
        assert (model, metadata["x-geniehive-client-key-id"], metadata["x-geniehive-node-key"]) == ("m", "k7", "n")


async def test_relays_that_it_learns_of_have_the_names_of_this_cluster() -> None:
    async with asking() as a:
        relay = resource(Relay(host_id="far", base_urls=("https://x:1",)))
        a.control.resolve = lambda _: (
            *(route("m", "far/e/m"), endpoint("far/e", "m"), upstream("far/e", ways=(Way(),)), relay),
        )
        learned = await a.look_up("m", "k7")
        assert learned is not None
        plan = learned.find("m", Operation.CHAT)
        assert isinstance(plan, Plan)
        assert plan.tiers[0].candidates[0].lanes[0].tls_name == relay_name("c-1", "far")


async def test_without_authentication_no_key_is_named() -> None:
    async with asking() as a:
        a.control.resolve = refuse
        assert await a.look_up("m", "") is None
        assert "x-geniehive-client-key-id" not in a.control.resolved[0][1]


async def test_what_control_does_not_know_is_not_asked_again_for_a_while() -> None:
    async with asking() as a:
        a.control.resolve = refuse
        for _ in range(3):
            assert await a.look_up("m", "k") is None
        assert len(a.control.resolved) == 1
        a.clock.time += REMEMBERED_FOR
        assert await a.look_up("m", "k") is None
        assert len(a.control.resolved) == 2


async def test_many_who_ask_share_one_call_and_one_who_leaves_takes_nothing_away() -> None:
    async with asking() as a:
        go = asyncio.Event()

        async def slow(request: Any) -> tuple[Resource, ...]:
            await go.wait()
            return served(request.model, a="http://x:1")

        a.control.resolve = slow
        calls = [asyncio.create_task(a.look_up("m", "k")) for _ in range(5)]
        await until(lambda: a.control.resolved)
        calls[0].cancel()
        go.set()
        assert all(await asyncio.gather(*calls[1:]))
        assert len(a.control.resolved) == 1


async def test_the_link_to_control_ends_while_it_is_asked() -> None:
    tasks = Tasks()
    async with FakeRouting() as control, aio_channel(control.address) as channel:
        go = asyncio.Event()

        async def slow(request: Any) -> tuple[Resource, ...]:
            await go.wait()
            return ()

        control.resolve = slow
        stub = RoutingServiceStub(channel)
        look_up = NameLookUp(lambda: stub, (), table(), ManualClock(), tasks)
        calls = [asyncio.create_task(look_up("m", "k")) for _ in range(2)]
        await until(lambda: control.resolved)
        await channel.close()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*calls) == [None, None]
        go.set()
        await tasks.close()


async def test_while_control_is_away_nothing_is_asked() -> None:
    async with asking() as a:
        a.stub = None
        assert await a.look_up("m", "k") is None
        assert a.control.resolved == []


async def test_a_control_that_hangs_costs_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.watch.lookup.DEADLINE", 0.05)
    async with asking() as a:
        never = asyncio.Event()

        async def hang(_: Any) -> tuple[Resource, ...]:
            await never.wait()
            return ()

        a.control.resolve = hang
        assert await a.look_up("m", "k") is None
        assert await a.look_up("m", "k") is None
        assert len(a.control.resolved) == 1
        never.set()


async def test_an_answer_that_makes_no_sense_is_none() -> None:
    async with asking() as a:
        a.control.resolve = lambda _: (Resource(name="route/x", version="1", content=Route(model="y")),)
        assert await a.look_up("x", "k") is None


async def test_memory_is_bounded() -> None:
    async with asking() as a:
        a.control.resolve = refuse
        for n in range(1100):
            await a.look_up(f"m{n}", "k")
        assert len(a.look_up._known) == 1024
