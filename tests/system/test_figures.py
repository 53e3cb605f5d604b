"""Figures travel: what gateways see of engines goes to control, and from there to every gateway's table."""

import signal
from typing import Any

import geniehive
from geniehive.v1.registry_service_pb2 import GetServiceRequest
from geniehive.v1.routing_service_pb2 import ResolveRequest
from tests.support.daemons import Cluster
from tests.support.processes import until

TOKENS = 60


async def engine(cluster: Cluster, host: str, pause: float) -> None:
    """A host with an engine that takes so long for each token."""
    url = await cluster.start_engine(host, "m")
    async with cluster.http.post(
        f"{url}/fake/script", json={"behave": {"chunk_delay": pause, "tokens": TOKENS}}
    ) as said:
        assert said.status == 200
    await cluster.start_node(host, {"engine": url})


async def ask(cluster: Cluster, model: str) -> str:
    """One chat, read to its end; the service that answered."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    url = f"{cluster.url}/v1/chat/completions"
    async with cluster.http.post(url, json=body, headers=cluster.headers()) as answer:
        assert answer.status == 200
        await answer.read()
        return answer.headers["x-geniehive-service"]


async def speeds(cluster: Cluster) -> dict[str, float]:
    """Of the endpoints in the table, as services' views have them too."""
    found: dict[str, float] = {}
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        for resource in (await hive.routing.Resolve(ResolveRequest(model="m"))).resources:
            if resource.HasField("endpoint") and resource.endpoint.HasField("speed"):
                service = resource.endpoint.service
                found[service] = resource.endpoint.speed.decode_tokens_per_second
                view = (await hive.registry.GetService(GetServiceRequest(service=service))).service
                assert view.speeds["m"] == resource.endpoint.speed
    return found


async def test_speeds_are_learned_kept_and_known_to_a_new_gateway(cluster: Cluster) -> None:
    await cluster.start_control("usage.report_interval=0.2", "restart_grace=30")
    await engine(cluster, "fast", 0.002)
    await engine(cluster, "slow", 0.02)
    await cluster.start_gateway()
    for host in ("fast", "slow"):
        await cluster.until_answers(f"{host}/engine")
        for _ in range(2):
            assert await ask(cluster, f"{host}/engine") == f"{host}/engine"

    async def known() -> bool:
        return (await speeds(cluster)).keys() == {"fast/engine", "slow/engine"}

    await until("both speeds are known", known, 10.0)
    learned = await speeds(cluster)
    assert learned["slow/engine"] < 51.0
    assert learned["fast/engine"] > 2 * learned["slow/engine"]

    # Neither is forgotten when control and the gateway go.
    cluster.gateway.signal(signal.SIGTERM)
    await cluster.gateway.ended()
    cluster.control.kill()
    await cluster.control.ended()
    await cluster.start_control("usage.report_interval=0.2", "restart_grace=30")
    again = await speeds(cluster)
    assert again.keys() == learned.keys()
    assert again["fast/engine"] > 2 * again["slow/engine"]

    for kept in cluster.folder.glob("**/table.pb"):
        kept.unlink()
    await cluster.start_gateway()
    await cluster.until_answers("fast/engine")
    assert [await ask(cluster, "m") for _ in range(4)] == ["fast/engine"] * 4


async def test_load_of_engines_reaches_gateways(cluster: Cluster) -> None:
    """An engine that is busy with what somebody asks past the gateway is left alone while another is free."""
    await cluster.start_control("load_interval=0.2")
    for host in ("a", "b"):
        await cluster.start_node(host, {"engine": await cluster.start_engine(host, "m", runtime="llamacpp")})
    await cluster.start_gateway()
    await cluster.until_answers("m")

    async def both_serve() -> bool:
        return {await ask(cluster, "m") for _ in range(4)} == {"a/engine", "b/engine"}

    await until("both serve", both_serve, 10.0)
    url = cluster.engine_urls["a"]
    async with cluster.http.post(f"{url}/fake/script", json={"behave": {"hold": "body", "times": 1}}) as said:
        assert said.status == 200
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    async with cluster.http.post(f"{url}/v1/chat/completions", json=body) as held:
        assert held.status == 200

        async def spared() -> bool:
            return [await ask(cluster, "m") for _ in range(6)] == ["b/engine"] * 6

        await until("the busy one is spared", spared, 10.0)
    async with cluster.http.post(f"{url}/fake/script", json={"behave": None}) as said:
        assert said.status == 200
    await until("both serve again", both_serve, 15.0)
