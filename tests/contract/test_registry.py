"""RegistryService on a real server."""

import asyncio

import pytest

from geniehive.rules.model import Availability, Host
from geniehive.v1 import credential_pb2, failure_pb2, load_pb2, node_service_pb2, registry_pb2
from geniehive.v1 import registry_service_pb2 as pb
from geniehive_control.core.records import StoredHost
from tests.support.cluster import EMBEDDINGS, asset, service
from tests.support.control_server import AS_NODE, Control, Stream, as_, for_client, refused, running_control, until
from tests.support.fake_store import FakeStore

READ = as_("read")
OLLAMA = service("gpu-1/ollama", "qwen3")


async def leave(control: Control, node: Stream, host_id: str) -> None:
    await node.done()
    assert await node.answer() is None
    host = control.hub.registry.host(host_id)
    assert host is not None
    await until(lambda: host.condition.availability is Availability.OFFLINE)


async def test_hosts() -> None:
    async with running_control() as control:
        one = await control.node("gpu-1", agent_version="1.2")
        await one.register(OLLAMA, labels={"room": "cellar"})
        two = await control.node("gpu-2", service("gpu-2/a", "m"))
        await leave(control, two, "gpu-2")
        load = load_pb2.MachineLoad(host_id="gpu-1", load_average=0.5)
        await one.send(node_service_pb2.SessionRequest(load=node_service_pb2.Load(machine=load)))
        host = control.hub.registry.host("gpu-1")
        assert host is not None
        await until(lambda: host.machine_load is not None)

        async def listed(**query: object) -> list[str]:
            answer = await control.registry.ListHosts(pb.ListHostsRequest(**query), metadata=READ)  # type: ignore[arg-type]
            return [view.host.host_id for view in answer.hosts]

        assert await listed() == ["gpu-1", "gpu-2"]
        assert await listed(availability=registry_pb2.AVAILABILITY_OFFLINE) == ["gpu-2"]
        assert await listed(availability=registry_pb2.AVAILABILITY_AVAILABLE) == ["gpu-1"]
        assert await listed(labels={"room": "cellar"}) == ["gpu-1"]
        assert await listed(labels={"room": "attic"}) == []
        view = (await control.registry.GetHost(pb.GetHostRequest(host_id="gpu-1"), metadata=READ)).host
        assert (view.agent_version, view.load.load_average) == ("1.2", 0.5)
        assert view.last_seen_time.seconds >= view.join_time.seconds > 0
        away = (await control.registry.GetHost(pb.GetHostRequest(host_id="gpu-2"), metadata=READ)).host
        assert away.condition.reason == registry_pb2.CONDITION_REASON_STREAM_CLOSED
        error = await refused(control.registry.GetHost(pb.GetHostRequest(host_id="x"), metadata=READ))
        assert (error.name, error.metadata) == ("OBJECT_NOT_FOUND", {"name": "x"})


async def test_services() -> None:
    async with running_control() as control:
        await control.node("gpu-1", OLLAMA, service("gpu-1/e", asset("e", EMBEDDINGS)))
        await control.node("gpu-2", service("gpu-2/ollama", "qwen3"))

        async def listed(**query: object) -> list[str]:
            answer = await control.registry.ListServices(pb.ListServicesRequest(**query), metadata=READ)  # type: ignore[arg-type]
            return [view.service.service for view in answer.services]

        assert await listed() == ["gpu-1/e", "gpu-1/ollama", "gpu-2/ollama"]
        assert await listed(host_id="gpu-1") == ["gpu-1/e", "gpu-1/ollama"]
        assert await listed(asset_id="qwen3") == ["gpu-1/ollama", "gpu-2/ollama"]
        assert await listed(operation=EMBEDDINGS) == ["gpu-1/e"]
        assert await listed(operation=EMBEDDINGS, asset_id="qwen3") == []
        view = (await control.registry.GetService(pb.GetServiceRequest(service="gpu-1/e"), metadata=READ)).service
        assert view.upstream.routable
        error = await refused(control.registry.GetService(pb.GetServiceRequest(service="x"), metadata=READ))
        assert error.name == "OBJECT_NOT_FOUND"


async def test_pages() -> None:
    async with running_control() as control:
        await control.node("gpu-1", *(service(f"gpu-1/s{number}", "m") for number in range(5)))
        found: list[str] = []
        token = ""
        while True:
            request = pb.ListServicesRequest(page_size=2, page_token=token)
            answer = await control.registry.ListServices(request, metadata=READ)
            assert len(answer.services) <= 2
            found += [view.service.service for view in answer.services]
            token = answer.next_page_token
            if not token:
                break
        assert found == [f"gpu-1/s{number}" for number in range(5)]
        first = await control.registry.ListServices(pb.ListServicesRequest(page_size=2), metadata=READ)
        for wrong in (
            pb.ListServicesRequest(page_token=first.next_page_token, host_id="gpu-1"),
            pb.ListServicesRequest(page_token="garbage"),
            pb.ListServicesRequest(page_token="äöü"),
        ):
            error = await refused(control.registry.ListServices(wrong, metadata=READ))
            assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": "page_token"})
        other = pb.ListServicesRequest(page_size=1, page_token=first.next_page_token)
        assert len((await control.registry.ListServices(other, metadata=READ)).services) == 1


async def test_how_the_cluster_is() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA)
        await control.gateway()

        async def health() -> pb.ClusterHealth:
            answer: pb.GetClusterHealthResponse = await control.registry.GetClusterHealth(
                pb.GetClusterHealthRequest(), metadata=READ
            )
            return answer.health

        found = await health()
        assert found.state == registry_pb2.HEALTH_STATE_HEALTHY
        assert (found.cluster_id, found.control_id) == ("c1", "control-1")
        assert (found.host_count, found.hosts_online, found.service_count, found.services_routable) == (1, 1, 1, 1)
        assert not found.HasField("restart_grace_end_time")
        (status,) = found.gateways
        assert (status.gateway_id, status.base_url) == ("gw", "http://gw")
        await until(lambda: all(subscriber.current for subscriber in control.hub.registry.subscribers))
        assert (await health()).gateways[0].current
        control.store.failing = "disk full"
        await leave(control, node, "gpu-1")
        await until(lambda: control.hub.registry.store_failure is not None)
        found = await health()
        assert found.store.reason == failure_pb2.FAILURE_REASON_STORE_UNAVAILABLE
        assert "disk full" in found.store.message
        assert found.state == registry_pb2.HEALTH_STATE_UNHEALTHY


async def test_the_grace_is_told_while_stored_hosts_are_presumed() -> None:
    store = FakeStore()
    await store.put_hosts([StoredHost(host=Host(host_id="gpu-1"), online=True)])
    async with running_control(store) as control:
        request = pb.GetClusterHealthRequest()
        assert (await control.registry.GetClusterHealth(request, metadata=READ)).health.HasField(
            "restart_grace_end_time"
        )
        await control.node("gpu-1", OLLAMA)
        assert not (await control.registry.GetClusterHealth(request, metadata=READ)).health.HasField(
            "restart_grace_end_time"
        )


class Watcher:
    def __init__(self, control: Control, *kinds: int) -> None:
        request = pb.WatchRegistryRequest(kinds=kinds)  # type: ignore[arg-type]
        self.stream = control.stream(control.registry.WatchRegistry(request, metadata=READ))

    async def next(self) -> str:
        """ "host gpu-1", "removed service gpu-1/x", "synced"."""
        event = await self.stream.answer()
        match event.WhichOneof("event"):
            case "changed":
                match event.changed.WhichOneof("object"):
                    case "host":
                        return f"host {event.changed.host.host.host_id}"
                    case "service":
                        return f"service {event.changed.service.service.service}"
                    case other:
                        return str(other)
            case "removed":
                kind = pb.ObjectKind.Name(event.removed.kind).removeprefix("OBJECT_KIND_").lower()
                return f"removed {kind} {event.removed.name}"
            case other:
                return str(other)

    async def until(self, wanted: str) -> list[str]:
        found: list[str] = []
        while not found or found[-1] != wanted:
            found.append(await self.next())
        return found


async def test_watch_registry_step_1_every_object_then_synced() -> None:
    async with running_control() as control:
        await control.node("gpu-1", OLLAMA)
        assert await Watcher(control).until("synced") == [
            "host gpu-1",
            "service gpu-1/ollama",
            "cluster_health",
            "synced",
        ]
        only = Watcher(control, pb.OBJECT_KIND_SERVICE, pb.OBJECT_KIND_ROLE)
        assert await only.until("synced") == ["service gpu-1/ollama", "synced"]


async def test_watch_registry_step_2_changes_as_they_happen() -> None:
    async with running_control() as control:
        watcher = Watcher(control, pb.OBJECT_KIND_HOST, pb.OBJECT_KIND_SERVICE)
        assert await watcher.next() == "synced"
        node = await control.node("gpu-1", OLLAMA)
        assert [await watcher.next(), await watcher.next()] == ["host gpu-1", "service gpu-1/ollama"]
        await node.register(OLLAMA, service("gpu-1/b", "m"))
        assert await watcher.next() == "service gpu-1/b"
        await node.register(OLLAMA)
        assert await watcher.next() == "removed service gpu-1/b"
        await control.hub.forget_host("gpu-1", "test")
        assert [await watcher.next(), await watcher.next()] == ["removed host gpu-1", "removed service gpu-1/ollama"]


async def test_watch_registry_step_3_a_quiet_stream_says_so() -> None:
    async with running_control(quiet=0.1) as control:
        watcher = Watcher(control, pb.OBJECT_KIND_HOST)
        assert [await watcher.next() for _ in range(3)] == ["synced"] * 3
        await control.node("gpu-1", OLLAMA)
        assert "host gpu-1" in await watcher.until("host gpu-1")


async def test_watches_end_when_control_stops_and_when_their_key_is_revoked() -> None:
    async with running_control() as control:
        from geniehive.v1 import admin_service_pb2 as admin
        from tests.support.control_server import bearer

        made = await control.admin.CreateClientKey(
            admin.CreateClientKeyRequest(display_name="w", scopes=[credential_pb2.SCOPE_READ]), metadata=as_("admin")
        )
        mine = control.stream(control.registry.WatchRegistry(pb.WatchRegistryRequest(), metadata=bearer(made.key)))
        other = control.stream(control.registry.WatchRegistry(pb.WatchRegistryRequest(), metadata=READ))
        load = control.stream(control.registry.WatchLoad(pb.WatchLoadRequest(), metadata=bearer(made.key)))
        await mine.answer()
        await load.answer()
        await control.admin.RevokeClientKey(
            admin.RevokeClientKeyRequest(key_id=made.client_key.key_id), metadata=as_("admin")
        )
        assert (await mine.ending()).name == "CREDENTIAL_REVOKED"
        assert (await load.ending()).name == "CREDENTIAL_REVOKED"
        await control.server.stop(2.0)
        assert (await other.ending()).name == "CONTROL_UNAVAILABLE"


async def test_a_watcher_that_leaves_is_forgotten() -> None:
    async with running_control() as control:
        watcher = Watcher(control)
        await watcher.until("synced")
        assert len(control.hub._watches) == 1
        await watcher.stream.close()
        await until(lambda: control.hub._watches == set())


async def test_watch_load() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", OLLAMA)
        await control.node("gpu-2", service("gpu-2/a", "m"))
        message = node_service_pb2.Load(
            machine=load_pb2.MachineLoad(cpu_used_fraction=0.25),
            services=[load_pb2.ServiceLoad(service="gpu-1/ollama", queued=0)],
        )
        await node.send(node_service_pb2.SessionRequest(load=message))
        request = pb.WatchLoadRequest()
        request.interval.FromMilliseconds(100)
        stream = control.stream(control.registry.WatchLoad(request, metadata=READ))
        answer = await stream.answer()
        while not answer.services:
            answer = await stream.answer()
        (load,) = answer.services
        assert (load.service, load.queued, load.HasField("running")) == ("gpu-1/ollama", 0, False)
        assert load.age_seconds >= 0
        assert [(m.host_id, m.cpu_used_fraction) for m in answer.machines] == [("gpu-1", 0.25)]
        await node.close()
        async with asyncio.timeout(5):
            while answer.services or answer.machines:
                answer = await stream.answer()
        request.interval.FromMilliseconds(50)
        assert (
            await control.stream(control.registry.WatchLoad(request, metadata=READ)).ending()
        ).name == "FIELD_INVALID"


@pytest.mark.parametrize("metadata", [AS_NODE, as_("infer"), for_client("infer"), for_client("read")])
async def test_callers_need_scope_read(metadata: tuple[tuple[str, str], ...]) -> None:
    async with running_control() as control:
        # What gateways may ask for their clients lets these in, too; this is none of it.
        error = await refused(control.registry.GetHost(pb.GetHostRequest(host_id="a"), metadata=metadata))
        assert (error.name, error.metadata) == ("SCOPE_MISSING", {"needs": "read"})


@pytest.mark.parametrize("metadata", [as_("operate"), as_("admin")])
async def test_callers_with_scope_read(metadata: tuple[tuple[str, str], ...]) -> None:
    async with running_control() as control:
        assert await control.registry.ListHosts(pb.ListHostsRequest(), metadata=metadata) is not None
