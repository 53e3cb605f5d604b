"""NodeService.Session, step by step, on a real server."""

import asyncio
from typing import Any

import grpc
import pytest

from geniehive import convert
from geniehive.rules.model import Availability, Condition, Reason
from geniehive.v1 import failure_pb2, load_pb2, node_service_pb2, node_service_pb2_grpc, registry_service_pb2
from tests.support.cluster import asset, inventory, service
from tests.support.control_server import AS_NODE, Control, Node, as_, running_control, until

Request = node_service_pb2.SessionRequest
OLLAMA = service("gpu-1/ollama", "qwen3")


def is_routable(control: Control, name: str) -> bool:
    resource = control.hub.registry.table.get(f"upstream/{name}")
    return resource is not None and resource.content.routable  # type: ignore[union-attr]


async def test_step_1_anything_else_before_hello() -> None:
    async with running_control() as control:
        for message in (Request(heartbeat=node_service_pb2.Heartbeat()), Request()):
            node = control.session()
            await node.send(message)
            assert (await node.ending()).name == "OUT_OF_ORDER"


async def test_step_1_hello_comes_once() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1")
        await node.send(Request(hello=node_service_pb2.Hello(host_id="gpu-1")))
        assert (await node.ending()).name == "OUT_OF_ORDER"


@pytest.mark.parametrize("host_id", ["", "GPU", "a/b", "-a", "a" * 64])
async def test_step_1_a_host_id_must_be_one(host_id: str) -> None:
    async with running_control() as control:
        node = control.session()
        await node.send(Request(hello=node_service_pb2.Hello(host_id=host_id)))
        error = await node.ending()
        assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": "hello.host_id"})


async def test_step_2_the_welcome_sets_the_pace() -> None:
    async with running_control(lease_ttl=3.0) as control:
        node = await control.node("gpu-1")
        assert node.welcome is not None
        assert node.welcome.session_id
        assert (node.welcome.host_id, node.welcome.cluster_id) == ("gpu-1", "c1")
        assert node.welcome.lease_ttl.ToMilliseconds() == 3000
        assert node.welcome.heartbeat_interval.ToMilliseconds() == 1000
        assert node.welcome.load_interval.ToMilliseconds() == 1000


async def test_step_3_an_inventory_is_answered_after_it_was_stored() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1")
        control.store.gate.clear()
        await node.offer(inventory("gpu-1", [OLLAMA]))
        # In force already, since serving waits for no database.
        await until(lambda: is_routable(control, "gpu-1/ollama"))
        assert node.silent
        assert control.store.hosts == {}
        control.store.gate.set()
        answer = await node.answer()
        assert answer.inventory_result.revision == 1
        assert control.store.hosts["gpu-1"].services == (OLLAMA,)


async def test_step_3_wrong_items_are_named_and_the_rest_counts() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1")
        result = await node.register(
            service("gpu-1/ollama", "qwen3", asset("bad\x07")), service("gpu-2/ollama", "x"), service("gpu-1/b", "y")
        )
        assert [(r.service, r.upstream_name if r.HasField("upstream_name") else None) for r in result.refused] == [
            ("gpu-1/ollama", "bad\x07"),
            ("gpu-2/ollama", None),
        ]
        assert [r.failure.reason for r in result.refused] == [
            failure_pb2.FAILURE_REASON_FIELD_INVALID,
            failure_pb2.FAILURE_REASON_NOT_YOURS,
        ]
        assert is_routable(control, "gpu-1/ollama")
        assert is_routable(control, "gpu-1/b")
        view = await control.registry.GetService(
            registry_service_pb2.GetServiceRequest(service="gpu-1/ollama"), metadata=as_("read")
        )
        assert len(view.service.refused) == 1


async def test_step_3_a_time_beyond_all_times_harms_nobody() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1")
        offered = convert.inventory_to_proto(inventory("gpu-1", [OLLAMA, service("gpu-1/b", "y")]))
        offered.host.condition.since_time.seconds = offered.services[1].condition.since_time.seconds = 10**15
        await node.send(Request(inventory=offered))
        answer = await node.answer()
        assert [item.service for item in answer.inventory_result.refused] == ["", "gpu-1/b"]
        gateway = await control.gateway()
        assert "upstream/gpu-1/ollama" in gateway.table
        hosts = await control.registry.ListHosts(registry_service_pb2.ListHostsRequest(), metadata=as_("read"))
        assert [view.host.host_id for view in hosts.hosts] == ["gpu-1"]


async def test_step_3_an_inventory_replaces_the_whole() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA, service("gpu-1/b", "y"))
        await node.register(service("gpu-1/b", "z"))
        assert sorted(name for name in control.hub.registry.table if "gpu-1" in name) == [
            "endpoint/gpu-1/b/z",
            "relay/gpu-1",
            "route/gpu-1/b",
            "upstream/gpu-1/b",
        ]


async def test_step_3_of_two_unanswered_inventories_the_later_is_answered() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1")
        control.store.gate.clear()
        await node.offer(inventory("gpu-1", [OLLAMA], revision=1))
        await until(lambda: is_routable(control, "gpu-1/ollama"))
        await node.offer(inventory("gpu-1", [service("gpu-1/b", "y")], revision=2))
        await until(lambda: is_routable(control, "gpu-1/b"))
        control.store.gate.set()
        assert (await node.answer()).inventory_result.revision == 2
        assert node.silent


async def test_step_3_an_inventory_of_another_host() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1")
        await node.offer(inventory("gpu-2"))
        assert (await node.ending()).name == "NOT_YOURS"


async def test_step_3_a_database_that_fails_delays_the_answer_alone() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1")
        control.store.failing = "disk full"
        await node.offer(inventory("gpu-1", [OLLAMA]))
        await until(lambda: control.hub.registry.store_failure is not None)
        assert is_routable(control, "gpu-1/ollama")
        assert node.silent
        control.store.failing = None
        assert (await node.answer()).inventory_result.revision == 1
        assert control.hub.registry.store_failure is None


async def test_step_4_every_message_renews_the_lease_and_nothing_is_stored() -> None:
    async with running_control(lease_ttl=0.4) as control:
        node = await control.node("gpu-1", OLLAMA)
        before = list(control.store.steps)
        started = asyncio.get_running_loop().time()
        load = node_service_pb2.Load(
            services=[load_pb2.ServiceLoad(service=name, running=1) for name in ("gpu-1/ollama", "gpu-1/other")]
        )
        while asyncio.get_running_loop().time() < started + 1.0:
            await node.beat()
            await asyncio.sleep(0.1)
            await node.send(Request(load=load))
            await asyncio.sleep(0.1)
            # An answer to a command that was never sent, and a message of a newer node.
            await node.send(Request(command_update={}))  # type: ignore[arg-type]
            await node.send(Request())
        assert is_routable(control, "gpu-1/ollama")
        assert control.store.steps == before
        views = await control.registry.ListServices(registry_service_pb2.ListServicesRequest(), metadata=as_("read"))
        assert [(view.load.service, view.load.running) for view in views.services] == [("gpu-1/ollama", 1)]


async def test_step_7_a_stream_that_closes_takes_the_host_offline_at_once() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA)
        gateway = await control.gateway()
        await node.close()
        await gateway.until(lambda: not gateway.table["upstream/gpu-1/ollama"].content.routable)  # type: ignore[union-attr]
        assert "route/qwen3" in gateway.table


async def test_step_7_silence_ends_the_session() -> None:
    async with running_control(lease_ttl=0.3) as control:
        node = await control.node("gpu-1", OLLAMA)
        gateway = await control.gateway()
        started = asyncio.get_running_loop().time()
        await gateway.until(lambda: not gateway.table["upstream/gpu-1/ollama"].content.routable)  # type: ignore[union-attr]
        assert asyncio.get_running_loop().time() - started < 0.3 + 0.5
        assert (await node.ending()).name == "SESSION_LOST"


async def test_step_8_a_newer_session_ends_the_older() -> None:
    async with running_control() as control:
        older = await control.node("gpu-1", OLLAMA, machine_id="m", instance_id="a")
        newer = await control.node("gpu-1", OLLAMA, machine_id="m", instance_id="b")
        error = await older.ending()
        assert error.name == "SESSION_SUPERSEDED"
        assert error.code is grpc.StatusCode.ABORTED
        await newer.beat()
        assert is_routable(control, "gpu-1/ollama")


async def test_step_8_who_was_ended_and_did_not_hear_why_is_told_again() -> None:
    async with running_control() as control:
        await control.node("gpu-1", OLLAMA, instance_id="a")
        newer = await control.node("gpu-1", OLLAMA, instance_id="b")
        again = control.session()
        await again.send(Request(hello=node_service_pb2.Hello(host_id="gpu-1", instance_id="a")))
        assert (await again.ending()).name == "SESSION_SUPERSEDED"
        await newer.register(OLLAMA)
        await control.hub.forget_host("gpu-1", "test")
        again = control.session()
        await again.send(Request(hello=node_service_pb2.Hello(host_id="gpu-1", instance_id="b")))
        assert (await again.ending()).name == "CREDENTIAL_REVOKED"
        assert control.hub._sessions.keys() == control.hub.registry._sessions.live.keys() == set()


async def test_step_8_a_clone_gets_an_id_of_its_own() -> None:
    async with running_control() as control:
        first = await control.node("gpu-1", OLLAMA, machine_id="m1")
        clone = await control.node("gpu-1", machine_id="m2")
        assert clone.host_id == "gpu-1-2"
        await clone.register(service("gpu-1-2/ollama", "qwen3"))
        await first.beat()
        assert is_routable(control, "gpu-1/ollama")
        assert is_routable(control, "gpu-1-2/ollama")


async def test_step_9_control_says_goodbye() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA)
        await control.server.stop(2.0)
        answer = await node.answer()
        assert answer.goodbye.reconnect_after.ToMilliseconds() > 0
        assert await node.answer() is None
        # The host did not leave: it is presumed to be there by the next control.
        assert control.store.hosts["gpu-1"].online


async def test_step_9_a_node_stops_in_order() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA)
        stopping = Condition(availability=Availability.DRAINING, reason=Reason.STOPPING)
        await node.register(OLLAMA, condition=stopping)
        await node.done()
        assert await node.answer() is None
        host = control.hub.registry.host("gpu-1")
        assert host is not None
        await until(lambda: host.condition.availability is Availability.OFFLINE)
        assert host.condition.reason is Reason.STOPPING
        await until(lambda: not control.store.hosts["gpu-1"].online)


async def test_step_10_after_a_restart_hosts_count_as_alive_until_the_grace_ends() -> None:
    async with running_control() as control:
        await control.node("gpu-1", OLLAMA)
        await control.node("gpu-2", service("gpu-2/ollama", "qwen3"))
        await control.server.stop(1.0)
        store = control.store
    async with running_control(store, restart_grace=0.5) as control:
        assert is_routable(control, "gpu-1/ollama")
        node = await control.node("gpu-1", OLLAMA)
        await until(lambda: not is_routable(control, "gpu-2/ollama"))
        assert is_routable(control, "gpu-1/ollama")
        await node.beat()


async def test_a_message_over_4_mib() -> None:
    async with running_control() as control:
        await control.node("gpu-0", service("gpu-0/a", "x"))
        channel = grpc.aio.insecure_channel(control.address)
        node = Node(node_service_pb2_grpc.NodeServiceStub(channel).Session(metadata=AS_NODE))
        await node.hello("gpu-1")
        await node.offer(inventory("gpu-1", [service("gpu-1/b", *(f"{'x' * 500}{n}" for n in range(5000)))]))
        assert (await node.ending()).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: len(control.hub.registry._sessions.live) == 1)
        await node.close()
        await channel.close()


async def test_garbage_is_no_reason_to_fall_over() -> None:
    async with running_control() as control:
        call: Any = control.channel.stream_stream("/geniehive.v1.NodeService/Session")(metadata=AS_NODE)
        await call.write(b"\xff\xff\xff garbage")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await control.node("gpu-1", OLLAMA)
        assert is_routable(control, "gpu-1/ollama")


async def test_a_forgotten_host() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA)
        control.hub.registry.host("gpu-1")
        await control.hub.forget_host("gpu-1", "test")
        assert (await node.ending()).name == "CREDENTIAL_REVOKED"


async def test_callers() -> None:
    async with running_control() as control:
        for metadata, name in (
            ((), "CREDENTIAL_REFUSED"),
            ((("x-geniehive-node-key", "wrong"),), "CREDENTIAL_REFUSED"),
            (as_("admin"), "SCOPE_MISSING"),
        ):
            # Before it said anything.
            assert (await control.session(metadata).ending()).name == name
