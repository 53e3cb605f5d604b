"""Questions to a gateway and to control."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from geniehive.cli import probe
from geniehive.cli.banner import Model
from geniehive.failures import Refused
from geniehive.kit import address
from geniehive.kit.http1 import Client, Origin
from geniehive.v1 import failure_pb2
from geniehive.v1.registry_service_pb2 import ClusterHealth, GatewayStatus, GetClusterHealthResponse
from tests.support.fake_control import FakeControl


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client()
    yield made
    await made.close()


async def test_the_models_that_a_gateway_lists(client: Client) -> None:
    answers = [web.Response(text=json.dumps({"data": [{"id": "m"}]})), web.Response(status=503), web.Response(text="{")]
    keys = []

    async def handle(request: web.BaseRequest) -> web.Response:
        keys.append(request.headers["authorization"])
        return answers.pop(0)

    server = web.ServerRunner(web.Server(handle))
    await server.setup()
    port = address.free_port()
    await web.TCPSite(server, "127.0.0.1", port).start()
    origin = Origin("http", "127.0.0.1", port)
    assert [await probe.models(client, origin, "k") for _ in range(3)] == [[Model("m")], [], []]
    assert keys == ["Bearer k"] * 3
    await server.cleanup()
    assert await probe.models(client, origin, "k") == []


async def test_until_control_says_that_the_gateway_is_current(control: FakeControl, tmp_path: Path) -> None:
    answers = [ClusterHealth(), ClusterHealth(gateways=[GatewayStatus()])]
    last = ClusterHealth(gateways=[GatewayStatus(current=True)])
    control.answers["GetClusterHealth"] = lambda _: GetClusterHealthResponse(health=answers.pop(0) if answers else last)
    async with asyncio.timeout(10):
        await probe.until_current(control.address, tmp_path)
    assert len(control.requests) == 3


async def test_a_control_that_does_not_say_keeps_nobody_waiting(
    control: FakeControl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control.answers["GetClusterHealth"] = Refused(failure_pb2.FAILURE_REASON_SCOPE_MISSING, "not with this key")
    async with asyncio.timeout(10):
        await probe.until_current(control.address, tmp_path)
    assert "not with this key" in capsys.readouterr().err
