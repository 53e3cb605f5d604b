import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

import geniehive
from geniehive.client import Changed, Hive, Removed, Resync, Synced
from geniehive.failures import Refused
from geniehive.kit.errors import UserError
from geniehive.v1.admin_service_pb2 import (
    CreateClientKeyRequest,
    CreateRoleResponse,
    DeleteAliasResponse,
    DeleteRoleResponse,
    SetAliasResponse,
    UpdateRoleResponse,
)
from geniehive.v1.benchmark_pb2 import BenchmarkSample
from geniehive.v1.failure_pb2 import FailureReason
from geniehive.v1.registry_pb2 import Host
from geniehive.v1.registry_service_pb2 import (
    GetHostRequest,
    GetHostResponse,
    HostView,
    ListAliasesResponse,
    ListBenchmarkSamplesResponse,
    ListHostsRequest,
    ListHostsResponse,
    ListRolesResponse,
    ObjectKind,
    WatchLoadResponse,
    WatchRegistryResponse,
)
from geniehive.v1.request_pb2 import Operation
from geniehive.v1.role_pb2 import Alias, Role
from geniehive.v1.routing_pb2 import Route
from geniehive.v1.routing_service_pb2 import (
    AwaitModelRequest,
    AwaitModelResponse,
    ExplainRouteResponse,
    MatchRoutesResponse,
    ResolveRequest,
    ResolveResponse,
)
from tests.support.scripted_control import ScriptedControl

HOST = ObjectKind.OBJECT_KIND_HOST
SYNCED = WatchRegistryResponse(synced=WatchRegistryResponse.Synced())
GONE = Refused(FailureReason.FAILURE_REASON_CONTROL_UNAVAILABLE, "stopping", retry_after=0.01)


def host(name: str) -> WatchRegistryResponse:
    return WatchRegistryResponse(changed=WatchRegistryResponse.Object(host=HostView(host=Host(host_id=name))))


@pytest.fixture
async def control() -> AsyncIterator[ScriptedControl]:
    async with ScriptedControl() as made:
        yield made


@pytest.fixture
async def hive(control: ScriptedControl) -> AsyncIterator[Hive]:
    async with geniehive.connect(control.address, key="gh-test") as made:
        yield made


async def test_calls_carry_key_and_deadline(control: ScriptedControl, hive: Hive) -> None:
    control.answer("GetHost", lambda request: GetHostResponse(host=HostView(host=Host(host_id=request.host_id))))
    control.answer("Resolve", lambda request: ResolveResponse())
    answer = await hive.registry.GetHost(GetHostRequest(host_id="gpu-1"))
    assert answer.host.host.host_id == "gpu-1"
    await hive.routing.Resolve(ResolveRequest(model="m"))
    await hive.routing.Resolve(ResolveRequest(model="m"), timeout=5, metadata=(("x-more", "1"),))
    assert [call.metadata["authorization"] for call in control.calls] == ["Bearer gh-test"] * 3
    assert control.calls[2].metadata["x-more"] == "1"
    for call, seconds in zip(control.calls, (10, 2, 5), strict=True):
        assert call.time_remaining == pytest.approx(seconds, abs=1)


async def test_errors_are_refused_with_their_reason(control: ScriptedControl, hive: Hive) -> None:
    def missing(request: GetHostRequest) -> GetHostResponse:
        reason = FailureReason.FAILURE_REASON_OBJECT_NOT_FOUND
        raise Refused(reason, f"no host {request.host_id}", metadata={"name": request.host_id})

    control.answer("GetHost", missing)
    with pytest.raises(Refused) as caught:
        await hive.registry.GetHost(GetHostRequest(host_id="gpu-9"))
    error = caught.value
    assert (error.name, error.code) == ("OBJECT_NOT_FOUND", grpc.StatusCode.NOT_FOUND)
    assert (error.message, error.metadata) == ("no host gpu-9", {"name": "gpu-9"})
    assert len(control.calls) == 1


async def test_roles_and_aliases(control: ScriptedControl, hive: Hive) -> None:
    role = Role(role_id="coder", etag="e1")
    control.answer("ListRoles", lambda request: ListRolesResponse(roles=[role]))
    control.answer("ListAliases", lambda request: ListAliasesResponse(aliases=[Alias(alias="x", target="coder")]))
    control.answer("CreateRole", lambda request: CreateRoleResponse(role=request.role))
    control.answer("UpdateRole", lambda request: UpdateRoleResponse(role=request.role))
    control.answer("DeleteRole", lambda request: DeleteRoleResponse())
    control.answer("SetAlias", lambda request: SetAliasResponse(alias=request.alias))
    control.answer("DeleteAlias", lambda request: DeleteAliasResponse())
    assert await hive.list_roles() == [role]
    assert [alias.target for alias in await hive.list_aliases()] == ["coder"]
    assert await hive.create_role(role) == role
    assert await hive.update_role(role) == role
    await hive.update_role(role, ["display_name"])
    await hive.delete_role("coder", "e1")
    assert (await hive.set_alias("x", "coder", "e2")).target == "coder"
    await hive.delete_alias("x")
    asked = [call.request for call in control.calls[3:]]
    assert [list(request.update_mask.paths) for request in asked[:2]] == [["*"], ["display_name"]]
    assert (asked[2].role_id, asked[2].etag) == ("coder", "e1")
    assert (asked[3].alias.etag, asked[4].alias, asked[4].etag) == ("e2", "x", "")


async def test_questions_about_routes(control: ScriptedControl, hive: Hive) -> None:
    candidate = MatchRoutesResponse.Candidate(model="coder", score=0.5)
    control.answer("MatchRoutes", lambda request: MatchRoutesResponse(candidates=[candidate]))
    control.answer("ExplainRoute", lambda request: ExplainRouteResponse(route=Route(model=request.model)))
    pages = [ListBenchmarkSamplesResponse(samples=[BenchmarkSample(sample_id=name)]) for name in "ab"]
    pages[0].next_page_token = "more"
    control.answer("ListBenchmarkSamples", lambda request: pages[bool(request.page_token)])
    assert await hive.match("write code", "and tests", workloads=["w/1"], include_services=True, limit=3) == [candidate]
    assert (await hive.explain("m", Operation.OPERATION_EMBEDDINGS)).route.model == "m"
    assert [sample.sample_id for sample in await hive.list_benchmarks("m", service="a/e")] == ["a", "b"]
    match, explain, listed = (call.request for call in control.calls[:3])
    assert (list(match.tasks), list(match.workloads)) == (["write code", "and tests"], ["w/1"])
    assert (match.include_services, match.limit, match.operation) == (True, 3, 0)
    assert explain.operation == Operation.OPERATION_EMBEDDINGS
    assert (listed.asset_id, listed.service, listed.workload) == ("m", "a/e", "")


async def test_a_read_is_tried_again(control: ScriptedControl, hive: Hive) -> None:
    def second_time(request: ListHostsRequest) -> ListHostsResponse:
        if len(control.calls) < 2:
            raise GONE
        return ListHostsResponse()

    control.answer("ListHosts", second_time)
    await hive.registry.ListHosts(ListHostsRequest())
    assert len(control.calls) == 2


async def test_a_read_is_not_tried_for_ever(control: ScriptedControl) -> None:
    def never(request: ListHostsRequest) -> ListHostsResponse:
        raise GONE

    control.answer("ListHosts", never)
    async with geniehive.connect(control.address, retries=1) as hive:
        with pytest.raises(Refused, match="stopping"):
            await hive.registry.ListHosts(ListHostsRequest())
    assert len(control.calls) == 2


async def test_a_write_is_never_tried_again(control: ScriptedControl, hive: Hive) -> None:
    def never(request: CreateClientKeyRequest) -> None:
        raise GONE

    control.answer("CreateClientKey", never)
    with pytest.raises(Refused, match="stopping"):
        await hive.admin.CreateClientKey(CreateClientKeyRequest())
    assert len(control.calls) == 1


async def test_a_control_that_is_away_is_unavailable() -> None:
    async with ScriptedControl() as control:
        pass
    async with geniehive.connect(control.address, retries=0) as hive:
        with pytest.raises(Refused) as caught:
            await hive.registry.ListHosts(ListHostsRequest())
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_takes_too_long_ends(control: ScriptedControl, hive: Hive) -> None:
    async def never(request: ListHostsRequest) -> None:
        await asyncio.Event().wait()

    control.answer("ListHosts", never)
    with pytest.raises(Refused) as caught:
        await hive.registry.ListHosts(ListHostsRequest(), timeout=0.1)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_lists_go_through_all_pages(control: ScriptedControl, hive: Hive) -> None:
    def page(request: ListHostsRequest) -> ListHostsResponse:
        number = int(request.page_token or 0)
        token = str(number + 1) if number < 2 else ""
        return ListHostsResponse(hosts=[HostView(host=Host(host_id=f"h{number}"))], next_page_token=token)

    control.answer("ListHosts", page)
    assert [found.host.host_id for found in await hive.list_hosts()] == ["h0", "h1", "h2"]


async def test_streams_give_messages_and_refused(control: ScriptedControl, hive: Hive) -> None:
    call = hive.routing.AwaitModel(AwaitModelRequest(model="m"))
    stream = await control.stream()
    assert stream.call.metadata["authorization"] == "Bearer gh-test"
    assert stream.call.time_remaining is None
    stream.send(AwaitModelResponse(endpoint="endpoint/a"))
    stream.fail(Refused(FailureReason.FAILURE_REASON_LOAD_NOT_PLACED, "nobody"))
    messages = aiter(call)
    assert (await anext(messages)).endpoint == "endpoint/a"
    with pytest.raises(Refused, match="nobody"):
        await anext(messages)


async def test_a_watch_goes_on_after_a_break(control: ScriptedControl, hive: Hive) -> None:
    watch = hive.watch([HOST])
    waiting = asyncio.create_task(anext(watch))
    stream = await control.stream()
    assert list(stream.call.request.kinds) == [HOST]
    stream.send(host("a"), host("b"), SYNCED)
    assert isinstance(await waiting, Changed)
    assert isinstance(await anext(watch), Changed)
    assert await anext(watch) == Synced(first=True)
    stream.fail(GONE)
    resync = await anext(watch)
    assert isinstance(resync, Resync)
    assert resync.cause.name == "CONTROL_UNAVAILABLE"
    waiting = asyncio.create_task(anext(watch))
    stream = await control.stream()
    stream.send(host("b"), SYNCED)
    first = await waiting
    assert isinstance(first, Removed)
    assert first.name == "a"
    assert await anext(watch) == Synced(first=False)


async def test_a_watch_outlives_control(hive: Hive, control: ScriptedControl) -> None:
    watch = hive.watch()
    waiting = asyncio.create_task(anext(watch))
    (await control.stream()).send(host("a"))
    await waiting
    await control.stop()
    assert isinstance(await anext(watch), Resync)
    waiting = asyncio.create_task(anext(watch))
    await control.start()
    (await control.stream()).send(host("b"))
    event = await waiting
    assert isinstance(event, Changed)
    assert event.name == "b"


async def test_a_watch_may_be_opened_before_control_is_there(control: ScriptedControl) -> None:
    await control.stop()
    async with geniehive.connect(control.address) as hive:
        watch = hive.watch()
        assert isinstance(await anext(watch), Resync)
        waiting = asyncio.create_task(anext(watch))
        await control.start()
        (await control.stream()).send(SYNCED)
        assert await waiting == Synced(first=True)


async def test_cancelling_the_wait_loses_nothing(control: ScriptedControl, hive: Hive) -> None:
    watch = hive.watch()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(watch)
    stream = await control.stream()
    stream.send(host("a"))
    assert isinstance(await anext(watch), Changed)
    assert len(control.calls) == 1


async def test_a_stream_that_falls_silent_counts_as_broken(control: ScriptedControl, hive: Hive) -> None:
    watch = hive.watch(silence=0.1)
    waiting = asyncio.create_task(anext(watch))
    stream = await control.stream()
    resync = await waiting
    assert isinstance(resync, Resync)
    assert "nothing for 0.1 s" in resync.cause.message
    async with asyncio.timeout(5):
        await stream.gone.wait()


async def test_a_watch_that_control_refuses_ends(control: ScriptedControl, hive: Hive) -> None:
    watch = hive.watch()
    waiting = asyncio.create_task(anext(watch))
    (await control.stream()).fail(Refused(FailureReason.FAILURE_REASON_SCOPE_MISSING, "needs read"))
    with pytest.raises(Refused, match="needs read"):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_closing_ends_a_watch_and_its_call(control: ScriptedControl, hive: Hive) -> None:
    async with hive.watch() as watch:
        waiting = asyncio.create_task(anext(watch, None))
        stream = await control.stream()
        await watch.close()
        assert await waiting is None
    async with asyncio.timeout(5):
        await stream.gone.wait()


async def test_leaving_the_hive_ends_its_watches(control: ScriptedControl) -> None:
    async with geniehive.connect(control.address) as hive:
        waiting = asyncio.create_task(anext(hive.watch(), None))
        stream = await control.stream()
    assert await waiting is None
    async with asyncio.timeout(5):
        await stream.gone.wait()


async def test_load_is_told_whole_and_over_breaks(control: ScriptedControl, hive: Hive) -> None:
    watch = hive.watch_load(0.5, ["gpu-1"])
    waiting = asyncio.create_task(anext(watch))
    stream = await control.stream()
    assert stream.call.request.interval.ToMilliseconds() == 500
    assert list(stream.call.request.host_ids) == ["gpu-1"]
    stream.send(WatchLoadResponse())
    assert await waiting == WatchLoadResponse()
    waiting = asyncio.create_task(anext(watch))
    stream.end()
    (await control.stream()).send(WatchLoadResponse())
    assert await waiting == WatchLoadResponse()


async def test_a_channel_of_the_callers_stays_open(control: ScriptedControl) -> None:
    control.answer("ListHosts", lambda request: ListHostsResponse())
    async with grpc.aio.insecure_channel(control.address) as channel:
        for _ in range(2):
            async with geniehive.connect(channel=channel) as hive:
                await hive.registry.ListHosts(ListHostsRequest())


async def test_no_key_leaves_this_machine_in_the_clear() -> None:
    async def enter() -> None:
        async with geniehive.connect("192.0.2.7:8801", key="gh-test"):
            pass

    with pytest.raises(UserError, match="--ca FILE"):
        await enter()


def test_no_key_in_its_repr() -> None:
    assert "gh-test" not in repr(geniehive.connect(key="gh-test"))
    assert "gh-test" not in repr(geniehive.connect_sync(key="gh-test"))


def test_the_client_needs_only_the_base_install(root: Path) -> None:
    """`pip install geniehive` brings none of these. (grpc itself imports its health and reflection where they are.)"""
    code = (
        "import sys, geniehive.client\n"
        "extras = {'aiohttp', 'aiosqlite', 'alembic', 'cryptography', 'httptools', 'msgspec',"
        " 'orjson', 'psutil', 'rich', 'sqlalchemy', 'typer', 'uvloop', 'yaml'}\n"
        "print(sorted(extras & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
