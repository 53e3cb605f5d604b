"""The examples, as somebody would run them, against a scripted control."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from geniehive.failures import Refused
from geniehive.v1.failure_pb2 import FailureReason
from geniehive.v1.load_pb2 import RouteLoad
from geniehive.v1.registry_pb2 import Asset, Availability, Condition, Gpu, Host, LoadState, Machine, Service
from geniehive.v1.registry_service_pb2 import (
    HostView,
    ListHostsResponse,
    ListServicesResponse,
    ServiceView,
    WatchLoadResponse,
    WatchRegistryResponse,
)
from geniehive.v1.request_pb2 import Operation
from geniehive.v1.routing_pb2 import Upstream
from tests.support.scripted_control import ScriptedControl

SYNCED = WatchRegistryResponse(synced=WatchRegistryResponse.Synced())


@pytest.fixture
async def control() -> AsyncIterator[ScriptedControl]:
    async with ScriptedControl() as made:
        yield made


async def start(root: Path, name: str, control: ScriptedControl) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(root / "examples" / name),
        control.address,
        env={**os.environ, "PYTHONPATH": str(root), "GENIEHIVE_KEY": "gh-test", "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def host(name: str, availability: Availability.ValueType, detail: str = "") -> HostView:
    machine = Machine(os="Debian 13", architecture="x86_64", memory_bytes=64 * 2**30, gpus=[Gpu(name="RTX 5090")])
    condition = Condition(availability=availability, detail=detail)
    return HostView(host=Host(host_id=name, machine=machine), condition=condition)


async def test_inventory_prints_hosts_services_and_models(root: Path, control: ScriptedControl) -> None:
    asset = Asset(asset_id="qwen3:8b", context_tokens=8192, load_state=LoadState.LOAD_STATE_LOADED)
    service = Service(
        service="gpu-1/ollama",
        runtime="ollama",
        runtime_version="0.33.0",
        operations=[Operation.OPERATION_CHAT, Operation.OPERATION_EMBEDDINGS],
        assets=[asset],
    )
    view = ServiceView(service=service, upstream=Upstream(service="gpu-1/ollama", routable=True))
    hosts = [host("gpu-1", Availability.AVAILABILITY_AVAILABLE)]
    control.answer("ListHosts", lambda request: ListHostsResponse(hosts=hosts))
    control.answer("ListServices", lambda request: ListServicesResponse(services=[view]))
    process = await start(root, "inventory.py", control)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.decode() == (
        "gpu-1: available; Debian 13, x86_64, 64 GiB, RTX 5090\n"
        "  gpu-1/ollama: ollama 0.33.0, routable\n"
        "    qwen3:8b: chat, embeddings; loaded, context 8192\n"
        "1 hosts, 1 services, 1 models\n"
    )
    assert {call.metadata["authorization"] for call in control.calls} == {"Bearer gh-test"}


async def test_inventory_says_what_is_wrong(root: Path, control: ScriptedControl) -> None:
    def refuse(request: object) -> None:
        raise Refused(FailureReason.FAILURE_REASON_CREDENTIAL_REFUSED, "this key is not known")

    control.answer("ListHosts", refuse)
    process = await start(root, "inventory.py", control)
    out, err = await process.communicate()
    assert (process.returncode, out, err.decode()) == (1, b"", "inventory: this key is not known\n")


async def test_watch_hosts_follows_over_a_break(root: Path, control: ScriptedControl) -> None:
    def changed(view: HostView) -> WatchRegistryResponse:
        return WatchRegistryResponse(changed=WatchRegistryResponse.Object(host=view))

    process = await start(root, "watch_hosts.py", control)
    stream = await control.stream()
    stream.send(changed(host("a", Availability.AVAILABILITY_AVAILABLE)))
    stream.send(changed(host("b", Availability.AVAILABILITY_AVAILABLE)), SYNCED)
    stream.send(changed(host("a", Availability.AVAILABILITY_OFFLINE, "no word for 3 s")))
    stream.fail(Refused(FailureReason.FAILURE_REASON_CONTROL_UNAVAILABLE, "stopping"))
    stream = await control.stream()
    stream.send(changed(host("a", Availability.AVAILABILITY_AVAILABLE)), SYNCED)
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(10):
        while len(lines) < 8:
            lines.append((await process.stdout.readline()).decode().rstrip("\n"))
    assert lines == [
        "a: available",
        "b: available",
        "-- 2 hosts",
        "a: available -> offline (no word for 3 s)",
        "-- control is away (stopping); what stands above may be old",
        "a: offline (no word for 3 s) -> available",
        "b: forgotten",
        "-- 1 hosts",
    ]
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def test_autoscale_asks_for_engines_where_requests_wait(root: Path, control: ScriptedControl) -> None:
    def load(*routes: tuple[str, int, int]) -> WatchLoadResponse:
        made = WatchLoadResponse()
        for model, in_flight, waiting in routes:
            chat = Operation.OPERATION_CHAT
            made.routes.append(RouteLoad(model=model, operation=chat, in_flight=in_flight, waiting=waiting))
        return made

    process = await start(root, "autoscale.py", control)
    stream = await control.stream()
    # A moment's queue is no reason; three in a row are, once.
    stream.send(load(("a", 4, 1), ("b", 1, 2)), load(("a", 4, 0), ("b", 1, 2)), *[load(("a", 4, 1), ("b", 1, 3))] * 3)
    stream.fail(Refused(FailureReason.FAILURE_REASON_CONTROL_UNAVAILABLE, "stopping"))
    stream = await control.stream()
    stream.send(load(("a", 1, 0)), load(("a", 1, 0)), load(("a", 1, 0)), load(), load(), load(), load())
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(10):
        while len(lines) < 4:
            lines.append((await process.stdout.readline()).decode().rstrip("\n"))
    assert lines == [
        "+ b (chat): 3 waiting, 1 in flight; start an engine",
        "+ a (chat): 1 waiting, 4 in flight; start an engine",
        "- b (chat): idle; stop one",
        "- a (chat): idle; stop one",
    ]
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
