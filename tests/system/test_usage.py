"""Usage over real processes: what the parts of the system lose when they are killed, and what they don't."""

import asyncio
import json
import signal

import aiohttp

import geniehive
from geniehive.v1.registry_service_pb2 import QueryUsageRequest, UsageDimension
from geniehive.v1.usage_pb2 import Outcomes
from tests.support.daemons import Cluster, cluster_health
from tests.support.processes import until

INTERVAL = "usage.report_interval=0.2"


async def started(cluster: Cluster) -> None:
    await cluster.start_control(INTERVAL)
    await cluster.start_node("a", {"engine": await cluster.start_engine("a", "m")})
    await cluster.start_gateway()
    await cluster.until_answers("m")


async def connected(cluster: Cluster) -> None:
    """A gateway may serve from the table that it kept before control is reached."""

    async def check() -> bool:
        async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
            return any(gateway.current for gateway in (await cluster_health(hive)).gateways)

    await until("the gateway is connected", check, 10.0)


async def counted(cluster: Cluster) -> Outcomes:
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        answer = await hive.registry.QueryUsage(QueryUsageRequest())
        return Outcomes.FromString(answer.rows[0].outcomes.SerializeToString())


async def ask(cluster: Cluster, count: int) -> int:
    """Calls the model so often; how often it answered."""
    return sum([await cluster.answers("m") for _ in range(count)])


async def until_counted(cluster: Cluster, wanted: int) -> None:
    found: list[int] = []

    async def check() -> bool:
        found.append((await counted(cluster)).requests_succeeded)
        return found[-1] == wanted

    await until(f"{wanted} requests are counted", check, 15.0)


async def served(cluster: Cluster) -> int:
    """How many requests were counted, once all are."""
    await asyncio.sleep(1.5)
    return (await counted(cluster)).requests_succeeded


async def test_every_request_is_counted_by_whom_and_where(cluster: Cluster) -> None:
    await started(cluster)
    before = await served(cluster)
    assert await ask(cluster, 10) == 10
    await until_counted(cluster, before + 10)
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        by = [UsageDimension.USAGE_DIMENSION_KEY, UsageDimension.USAGE_DIMENSION_MODEL,
              UsageDimension.USAGE_DIMENSION_SERVICE]  # fmt: skip
        (row,) = [r for r in (await hive.registry.QueryUsage(QueryUsageRequest(group_by=by))).rows if r.values[2]]
        assert list(row.values) == ["local-client", "m", "a/engine"]
        assert row.outcomes.requests_with_tokens == row.outcomes.requests
        assert row.outcomes.completion_tokens > 0
        assert sum(row.outcomes.duration.counts) == row.outcomes.requests
    # And as clients see it.
    url = f"{cluster.url}/v1/cluster/usage?by=model&since=1h"
    async with cluster.http.get(url, headers=cluster.headers()) as answer:
        (found,) = [row for row in (await answer.json())["data"] if row["model"]]
        assert (answer.status, found["model"], found["requests_succeeded"]) == (200, "m", before + 10)
    process = cluster.process(
        "usage", "-m", "geniehive.cli", "usage", "--by", "host", "--control", cluster.control_address, "--key",
        cluster.admin_key, "--json",
    )  # fmt: skip
    await process.start()
    assert await process.ended() == 0


async def test_killing_control_loses_nothing_and_counts_nothing_twice(cluster: Cluster) -> None:
    await started(cluster)
    expected = await served(cluster)
    for pause in (0.0, 0.05, 0.25, 0.6):
        expected += await ask(cluster, 20)
        # At some moment between a report and its writing, or after both.
        await asyncio.sleep(pause)
        cluster.control.kill()
        await cluster.control.ended()
        expected += await ask(cluster, 5)
        url = f"{cluster.url}/v1/cluster/usage"
        async with cluster.http.get(url, headers=cluster.headers()) as answer:
            assert answer.status == 503
            assert "control" in (await answer.json())["error"]["message"]
        await cluster.start_control(INTERVAL)
    await until_counted(cluster, expected)


async def test_a_gateway_that_is_stopped_reports_what_it_counted_last(cluster: Cluster) -> None:
    await cluster.start_control("usage.report_interval=60")
    await cluster.start_node("a", {"engine": await cluster.start_engine("a", "m")})
    await cluster.start_gateway()
    await connected(cluster)
    await cluster.until_answers("m")
    assert await ask(cluster, 10) == 10
    cluster.gateway.signal(signal.SIGTERM)
    await cluster.gateway.ended()
    first = (await counted(cluster)).requests_succeeded
    assert first >= 10
    await cluster.start_gateway()
    await connected(cluster)
    await cluster.until_answers("m")
    cluster.gateway.signal(signal.SIGTERM)
    await cluster.gateway.ended()
    assert (await counted(cluster)).requests_succeeded > first


async def test_killing_a_gateway_loses_one_interval(cluster: Cluster) -> None:
    await started(cluster)
    before = await served(cluster)
    assert await ask(cluster, 10) == 10
    await until_counted(cluster, before + 10)
    lost = await ask(cluster, 3)
    cluster.gateway.kill()
    await cluster.gateway.ended()
    found = await served(cluster)
    assert before + 10 <= found <= before + 10 + lost
    await cluster.start_gateway()
    assert await ask(cluster, 4) == 4
    await until_counted(cluster, found + 4)


async def test_routes_under_way_are_seen_at_control(cluster: Cluster) -> None:
    await started(cluster)
    slow = await cluster.start_engine("b", "slow")
    async with cluster.http.post(f"{slow}/fake/script", json={"behave": {"hold": "head"}}) as answer:
        assert answer.status == 200
    await cluster.start_node("b", {"engine": slow})

    async def listed() -> bool:
        return "slow" in await cluster.models()

    await until("the slow model is listed", listed, 10.0)

    async def call() -> None:
        body = {"model": "slow", "messages": [{"role": "user", "content": "x"}]}
        url = f"{cluster.url}/v1/chat/completions"
        try:
            async with cluster.http.post(url, data=json.dumps(body), headers=cluster.headers()):
                pass
        except aiohttp.ClientError:
            pass

    calls = [asyncio.create_task(call()) for _ in range(3)]
    try:
        async with (
            geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive,
            hive.watch_load(0.1) as messages,
            asyncio.timeout(10),
        ):
            async for load in messages:
                if [(r.model, r.in_flight, r.waiting) for r in load.routes] == [("slow", 3, 0)]:
                    break
    finally:
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
