"""Requests that wait at the gateway, between real daemons: for a model that loads, and for a turn."""

import asyncio
import json
import urllib.request
from typing import Any

from tests.support.daemons import Cluster
from tests.support.processes import until


async def engine(cluster: Cluster, method: str, path: str, orders: dict[str, Any] | None = None) -> Any:
    """Tells the fake engine what to do, or asks how it is."""

    def call() -> Any:
        body = None if orders is None else json.dumps(orders).encode()
        request = urllib.request.Request(cluster.engine_urls["a"] + path, data=body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    return await asyncio.to_thread(call)


async def with_llamacpp(cluster: Cluster, *gateway: str) -> None:
    await cluster.start_control()
    await cluster.start_node("a", {"engine": await cluster.start_engine("a", "m", runtime="llamacpp")})
    await cluster.start_gateway(*gateway)
    await cluster.until_answers("m")


async def test_a_model_that_is_loaded_anew_is_waited_for(cluster: Cluster) -> None:
    await with_llamacpp(cluster)
    await engine(cluster, "POST", "/fake/script", {"states": {"m": "loading"}})
    # The first hears it from the engine, the later ones mostly from the node, which looks every second.
    asked = []
    for _ in range(6):
        asked.append(asyncio.create_task(cluster.chat("m")))
        await asyncio.sleep(0.4)
    assert not any(one.done() for one in asked)
    await engine(cluster, "POST", "/fake/script", {"states": {"m": "loaded"}})
    async with asyncio.timeout(10):
        assert [(await one)[0] for one in asked] == [200] * 6


async def test_no_more_at_once_than_slots_allow_and_all_are_answered(cluster: Cluster) -> None:
    await with_llamacpp(cluster, "limits.per_slot=1.0")
    await engine(cluster, "POST", "/fake/script", {"behave": {"hold": "head"}})
    asked = [asyncio.create_task(cluster.chat("m")) for _ in range(7)]

    async def running() -> int:
        return int((await engine(cluster, "GET", "/fake/state"))["running"])

    async def busy() -> bool:
        return await running() == 2

    await until("both slots work", busy, 10.0)
    await asyncio.sleep(0.3)
    assert await running() == 2
    await engine(cluster, "POST", "/fake/script", {"behave": None})
    async with asyncio.timeout(10):
        assert [(await one)[0] for one in asked] == [200] * 7
