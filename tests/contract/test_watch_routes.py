"""RoutingService.WatchRoutes, step by step, on a real server."""

import asyncio

import pytest

from geniehive.rules.model import Resource, Upstream
from geniehive.v1 import registry_service_pb2, routing_service_pb2
from geniehive.v1.load_pb2 import ServiceLoad
from geniehive_control import loads
from geniehive_control.core.table import Table
from geniehive_control.rpc.certificates import Certificates
from geniehive_control.rpc.routing_service import RoutingService
from tests.support.cluster import service
from tests.support.control_server import Control, Gateway, as_, for_client, running_control, until

KEYS = {"key/infer", "key/read", "key/operate", "key/admin"}
OLLAMA = service("gpu-1/ollama", "qwen3")
OF_OLLAMA = {
    "relay/gpu-1",
    "upstream/gpu-1/ollama",
    "endpoint/gpu-1/ollama/qwen3",
    "route/qwen3",
    "route/gpu-1/ollama",
}


def versions(gateway: Gateway) -> dict[str, str]:
    return {name: resource.version for name, resource in gateway.table.items()}


def everything(table: Table) -> tuple[Resource, ...]:
    return tuple(resource for name in table if (resource := table.get(name)) is not None)


def in_force(control: Control) -> dict[str, str]:
    return {resource.name: resource.version for resource in everything(control.hub.registry.table)}


def is_routable(gateway: Gateway, name: str) -> bool:
    resource = gateway.table.get(f"upstream/{name}")
    return resource is not None and isinstance(resource.content, Upstream) and resource.content.routable


async def test_step_1_anything_else_first() -> None:
    async with running_control() as control:
        gateway = control.watch()
        await gateway.ack("1")
        assert (await gateway.ending()).name == "OUT_OF_ORDER"


async def test_step_1_subscribe_comes_once() -> None:
    async with running_control() as control:
        gateway = await control.gateway()
        await gateway.subscribe()
        assert (await gateway.ending()).name == "OUT_OF_ORDER"


async def test_step_2_a_cold_gateway_gets_everything() -> None:
    async with running_control() as control:
        await control.node("gpu-1", OLLAMA)
        gateway = control.watch()
        await gateway.subscribe()
        (part,) = await gateway.apply()
        assert gateway.table.keys() == KEYS | OF_OLLAMA
        assert (part.control_id, part.cluster_id) == ("control-1", "c1")
        assert versions(gateway) == in_force(control)
        for name, resource in gateway.table.items():
            assert resource == control.hub.registry.table.get(name)


async def test_step_2_a_gateway_that_resumes_gets_the_difference_even_if_empty() -> None:
    async with running_control() as control:
        await control.node("gpu-1", OLLAMA)
        gateway = await control.gateway()
        again = control.watch()
        await again.subscribe(versions(gateway))
        (part,) = await again.apply()
        assert (list(part.changed), list(part.removed)) == ([], [])
        third = control.watch()
        await third.subscribe({**versions(gateway), "key/infer": "older", "key/gone": "x"})
        (part,) = await third.apply()
        assert [resource.name for resource in part.changed] == ["key/infer"]
        assert list(part.removed) == ["key/gone"]


async def test_step_2_a_large_update_comes_in_parts_of_one_nonce() -> None:
    async with running_control() as control:
        models = [f"{'m' * 480}{number}" for number in range(2200)]
        await control.node("gpu-1", service("gpu-1/big", *models))
        gateway = control.watch()
        await gateway.subscribe()
        parts = await gateway.apply()
        assert len(parts) > 1
        assert len({part.nonce for part in parts}) == 1
        assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
        assert all(part.ByteSize() < 4 * 1024 * 1024 for part in parts)
        assert versions(gateway) == in_force(control)


async def test_step_3_a_rejected_update_is_shown_and_not_sent_again() -> None:
    async with running_control() as control:
        gateway = control.watch()
        await gateway.subscribe()
        (part,) = await gateway.update()
        await gateway.ack(part.nonce, rejected="cannot read key/infer\x1b[2J\n" + "x" * 10_000)
        (subscriber,) = control.hub.registry.subscribers
        await until(lambda: subscriber.rejected is not None)
        assert subscriber.rejected is not None
        assert subscriber.rejected.startswith("cannot read key/infer [2J xxx"), "it stands in a log, too"
        assert len(subscriber.rejected) == 1000
        node = await control.node("gpu-1", OLLAMA)
        (part,) = await gateway.apply()
        health = await control.registry.GetClusterHealth(
            registry_service_pb2.GetClusterHealthRequest(), metadata=as_("read")
        )
        (status,) = health.health.gateways
        assert status.gateway_id == "gw"
        assert not status.current
        while gateway.table.keys() < OF_OLLAMA:
            await gateway.apply()
        assert gateway.table.keys() == OF_OLLAMA, "the keys were refused, and are still what they were"
        await node.beat()


async def test_step_4_one_update_in_flight_and_changes_merge() -> None:
    async with running_control() as control:
        gateway = await control.gateway()
        node = await control.node("gpu-1", OLLAMA)
        (first,) = await gateway.update()
        for number in range(5):
            await node.register(OLLAMA, service("gpu-1/b", f"m{number}"))
        await until(lambda: not control.hub.registry._table.stale)
        assert gateway.silent
        await gateway.ack(first.nonce)
        (second,) = await gateway.update()
        names = {resource.name for resource in second.changed}
        assert {"route/m4", "upstream/gpu-1/b"} <= names
        assert not names & {"route/m0", "route/m1", "route/m2", "route/m3"}


async def test_step_5_load_of_services_that_changed() -> None:
    async with running_control(load_interval=0.05) as control:
        node = await control.node("gpu-1", OLLAMA, service("gpu-1/other", "m"))
        busy = ServiceLoad(service="gpu-1/ollama", running=2, queued=1, tokens_per_second=9.0, age_seconds=0.5)
        await node.load(busy)
        gateway = await control.gateway()
        sample = (await gateway.told("load")).load
        (load,) = sample.services
        assert (load.service, load.running, load.queued) == ("gpu-1/ollama", 2, 1)
        assert load.age_seconds >= 0.5
        assert not load.HasField("tokens_per_second"), "nobody balances by it"
        assert sample.stale_after.ToNanoseconds() == 500_000_000
        await node.load(busy, ServiceLoad(service="gpu-1/other", running=1))
        told: set[str] = set()
        while "gpu-1/other" not in told:
            told |= {load.service for load in (await gateway.told("load")).load.services}
        # One that comes later is told everything at once.
        later = control.watch()
        await later.subscribe()
        await later.apply()
        sample = later.loads[0] if later.loads else (await later.told("load")).load
        assert {load.service for load in sample.services} == {"gpu-1/ollama", "gpu-1/other"}


async def test_step_5_a_gateway_that_reads_late_gets_the_newest() -> None:
    async with running_control(load_interval=1000.0) as control:
        node = await control.node("gpu-1", OLLAMA)
        await control.gateway()
        reader = control.loads.reader()
        for running in range(1, 4):
            await node.load(ServiceLoad(service="gpu-1/ollama", running=running))
            await until(lambda running=running: _running(control) == running)  # type: ignore[misc]
            control.loads.gather()
            control.hub.tell_loads()
        ((message,), nothing) = (list(reader.messages()), list(reader.messages()))
        assert [load.running for load in message.load.services] == [3]
        assert nothing == []


async def test_step_5_much_load_comes_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "_MOST", 2)
    async with running_control(load_interval=1000.0) as control:
        names = [f"gpu-1/s{number}" for number in range(5)]
        node = await control.node("gpu-1", *(service(name, "m") for name in names))
        await node.load(*(ServiceLoad(service=name, running=1) for name in names))
        await until(lambda: _running(control, "gpu-1/s4") == 1)
        one, other = control.loads.reader(), control.loads.reader()
        messages = list(one.messages())
        assert [len(message.load.services) for message in messages] == [2, 2, 1]
        assert sorted(load.service for message in messages for load in message.load.services) == names
        # Ages too: two who keep up get the same, made once.
        assert list(other.messages()) == messages


def _running(control: Control, name: str = "gpu-1/ollama") -> int | None:
    host = control.hub.registry.host("gpu-1")
    assert host is not None
    return host.loads[name].running if name in host.loads else None


async def test_step_6_a_restart_removes_nothing_and_takes_no_routable() -> None:
    async with running_control() as control:
        await control.node("gpu-1", OLLAMA)
        await control.node("gpu-2", service("gpu-2/ollama", "qwen3"))
        gateway = await control.gateway()
        held = versions(gateway)
        table = dict(gateway.table)
        await control.server.stop(1.0)
        store = control.store
    async with running_control(store, restart_grace=1.0) as control:
        gateway = control.watch()
        gateway.table = table
        await gateway.subscribe(held)
        (part,) = await gateway.apply()
        assert (list(part.changed), list(part.removed)) == ([], [])
        node = await control.node("gpu-1", OLLAMA)
        node.keep_alive()
        await gateway.until(lambda: not is_routable(gateway, "gpu-2/ollama"))
        assert is_routable(gateway, "gpu-1/ollama")
        assert control.hub.registry.grace_ends is None
        assert "route/qwen3" in gateway.table


async def test_step_8_a_planned_stop() -> None:
    async with running_control() as control:
        gateway = await control.gateway()
        await control.server.stop(2.0)
        error = await gateway.ending()
        assert error.name == "CONTROL_UNAVAILABLE"
        assert error.retry_after is not None


async def test_a_change_arrives_within_milliseconds() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA)
        gateway = await control.gateway()
        loop = asyncio.get_running_loop()
        best = 1.0
        for number in range(10):
            started = loop.time()
            await node.register(service("gpu-1/ollama", f"m{number}"))
            name = f"route/m{number}"
            await gateway.until(lambda name=name: name in gateway.table)  # type: ignore[misc]
            best = min(best, loop.time() - started)
        assert best < 0.1


async def test_parts_are_of_the_size_asked_for() -> None:
    async with running_control() as control:
        await control.node("gpu-1", service("gpu-1/b", *(f"m{number}" for number in range(50))))
        certificates = Certificates(control.hub, None)
        routing = RoutingService(  # type: ignore[abstract]
            control.hub, "c", certificates, control.usage, control.loads, part_bytes=500
        )
        gateway = control.watch()
        await gateway.subscribe()
        await gateway.apply()
        from geniehive_control.core.effects import Update

        table = control.hub.registry.table
        update = Update(
            subscriber_id="x",
            nonce="1",
            changed=everything(table),
            removed=tuple(f"route/gone-{number}" for number in range(100)),
        )
        parts = list(routing._parts(update))
        assert [part.update.more for part in parts] == [True] * (len(parts) - 1) + [False]
        assert sum(len(part.update.changed) for part in parts) == len(table)
        assert sum(len(part.update.removed) for part in parts) == 100
        assert max(part.ByteSize() for part in parts) < 1000


async def test_callers() -> None:
    async with running_control() as control:
        for metadata, name in (
            ((), "CREDENTIAL_REFUSED"),
            (as_("admin"), "SCOPE_MISSING"),
            (for_client("admin"), "SCOPE_MISSING"),
        ):
            assert (await control.watch(metadata).ending()).name == name


async def test_load_may_be_acknowledged_by_mistake() -> None:
    async with running_control() as control:
        gateway = await control.gateway()
        await gateway.ack("never sent")
        await gateway.send(routing_service_pb2.WatchRoutesRequest())
        await control.node("gpu-1", OLLAMA)
        await gateway.until(lambda: "route/qwen3" in gateway.table)
