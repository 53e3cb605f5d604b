"""The system with its parts killed. Each test says what a user sees."""

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest

import geniehive
from geniehive.failures import Refused
from geniehive.v1 import registry_pb2
from tests.support.daemons import Cluster, client_keys, cluster_health, make_key
from tests.support.processes import until

LEASE = 2.5


async def two_hosts(cluster: Cluster) -> None:
    """Control, a gateway, and hosts a and b with one engine each that has the model m."""
    await cluster.start_control()
    first = await cluster.start_engine("a", "m")
    second = await cluster.start_engine("b", "m")
    await cluster.start_node("a", {"engine": first})
    await cluster.start_node("b", {"engine": second})
    await cluster.start_gateway()
    await until_hosts_serve(cluster, {"a", "b"})


async def serving_hosts(cluster: Cluster, model: str = "m", calls: int = 4) -> set[str]:
    hosts = set()
    for _ in range(calls):
        status, _, headers = await cluster.chat(model)
        if status == 200:
            hosts.add(headers["x-geniehive-host"])
    return hosts


async def until_hosts_serve(cluster: Cluster, hosts: set[str], within: float = 10.0) -> float:
    async def check() -> bool:
        return await serving_hosts(cluster) == hosts

    return await until(f"{sorted(hosts)} serve", check, within)


class Caller:
    """Calls the model over and over until told to stop, and keeps what it got."""

    def __init__(self, cluster: Cluster, model: str = "m", pause: float = 0.01) -> None:
        self.outcomes: Counter[Any] = Counter()
        self.lists: Counter[int] = Counter()
        self.failures: list[Any] = []
        self._cluster, self._model, self._pause = cluster, model, pause
        self._stop = asyncio.Event()

    async def __aenter__(self) -> "Caller":
        self._tasks = [asyncio.create_task(self._call()) for _ in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _call(self) -> None:
        while not self._stop.is_set():
            try:
                status, body, _ = await self._cluster.chat(self._model)
            except aiohttp.ClientError as error:
                status, body = 0, {"error": repr(error)}
            self.outcomes[status] += 1
            if status != 200:
                self.failures.append((status, body))
            self.lists[len(await self._cluster.models())] += 1
            await asyncio.sleep(self._pause)

    async def calls(self, count: int) -> None:
        """Until so many more calls have been answered."""
        goal = self.outcomes.total() + count

        async def check() -> bool:
            return self.outcomes.total() >= goal

        await until(f"{count} calls", check, 20.0)


async def test_a_killed_engine_is_answered_for_by_another_and_comes_back(cluster: Cluster) -> None:
    await two_hosts(cluster)
    port = int(cluster.engine_urls["a"].rpartition(":")[2])
    async with Caller(cluster) as caller:
        await caller.calls(20)
        cluster.engines["a"].kill()
        await caller.calls(60)
    assert caller.failures == []
    assert set(caller.outcomes) == {200}
    assert await serving_hosts(cluster) == {"b"}
    await cluster.start_engine("a", "m", port=port)
    await until_hosts_serve(cluster, {"a", "b"})


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_lost_node_is_out_of_the_table_within_its_lease(cluster: Cluster, how: signal.Signals) -> None:
    await cluster.start_control()
    engine = await cluster.start_engine("a", "only-a")
    node = await cluster.start_node("a", {"engine": engine})
    await cluster.start_gateway()
    await cluster.until_answers("only-a")

    async def refused() -> bool:
        status, body, headers = await cluster.chat("only-a")
        # 502: the node died with this very call in its hands, and there was nobody else.
        assert status in (200, 502, 503), body
        if status == 503:
            assert "retry-after" in headers
            assert "a/engine" in body["error"]["message"]
        return status == 503

    node.signal(how)
    took = await until("503", refused, LEASE + 3)
    assert took < LEASE + 0.5
    # The name still exists: it is not a 404, and it stays listed.
    assert (await cluster.chat("nobody-has-this"))[0] == 404
    if how is signal.SIGSTOP:
        node.signal(signal.SIGCONT)
    else:
        await node.restart()
    await cluster.until_answers("only-a")


async def test_control_killed_under_load_harms_no_request_and_loses_nothing(cluster: Cluster) -> None:
    await two_hosts(cluster)
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        made = await make_key(hive, "made before the kill")
    async with Caller(cluster) as caller:
        await caller.calls(20)
        cluster.control.kill()
        await cluster.control.ended()
        await caller.calls(60)
        # A key that was acknowledged an instant before the kill works on, at the gateway too.
        async with cluster.http.get(f"{cluster.url}/v1/models", headers=cluster.headers(made)) as answer:
            assert answer.status == 200
        await cluster.control.start()
        await cluster.control.notice("ready")
        listening = time.monotonic()
        async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:

            async def all_back() -> bool:
                health = await cluster_health(hive)
                hosts = await hive.list_hosts()
                back = [h for h in hosts if h.condition.reason != registry_pb2.CONDITION_REASON_PRESUMED]
                assert {h.host.host_id for h in hosts} == {"a", "b"}
                return len(back) == 2 and health.hosts_online == 2 and len(health.gateways) == 1

            await until("nodes and gateway are back", all_back, 10.0)
            assert time.monotonic() - listening < 5.0
            await caller.calls(40)
            assert "made before the kill" in [k.display_name for k in await client_keys(hive)]
    assert caller.failures == []
    assert set(caller.outcomes) == {200}
    # Whenever the list was asked for, the model was in it.
    assert set(caller.lists) == {1}, caller.lists
    await until_hosts_serve(cluster, {"a", "b"})


async def test_a_gateway_starts_without_control_from_the_table_it_kept(cluster: Cluster) -> None:
    await two_hosts(cluster)
    kept = cluster.state / "gateway" / "table.pb"

    async def saved() -> bool:
        return kept.exists()

    await until("the table is kept", saved)
    assert kept.stat().st_mode & 0o777 == 0o600
    cluster.control.kill()
    await cluster.control.ended()
    cluster.gateway.signal(signal.SIGTERM)
    assert await cluster.gateway.ended() == 0
    await cluster.gateway.start()
    notice = await cluster.gateway.notice("serving")
    await cluster.gateway.notice("ready")
    assert notice["source"] == "kept"
    assert await serving_hosts(cluster) == {"a", "b"}
    # Nor is anybody let in who was not before.
    async with cluster.http.get(f"{cluster.url}/v1/models", headers=cluster.headers("gh-wrong")) as answer:
        assert answer.status == 401


async def restart_in(cluster: Cluster, order: tuple[str, ...]) -> None:
    processes = {
        "engine": cluster.engines["a"],
        "node": cluster.nodes["a"],
        "control": cluster.control,
        "gateway": cluster.gateway,
    }
    for name in order:
        processes[name].kill()
        await processes[name].ended()
        await processes[name].start()
        await processes[name].notice("ready")


async def state_of(cluster: Cluster) -> Any:
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        services = [
            (s.service.service, s.upstream.routable, sorted(a.asset_id for a in s.service.assets))
            for s in await hive.list_services()
        ]
        hosts = [(h.host.host_id, h.condition.availability, h.condition.reason) for h in await hive.list_hosts()]
    return services, hosts, await cluster.models(), await serving_hosts(cluster)


async def _same_state_after(cluster: Cluster, orders: list[tuple[str, ...]]) -> None:
    await two_hosts(cluster)
    before = await state_of(cluster)
    assert before[3] == {"a", "b"}
    for order in orders:
        await restart_in(cluster, order)

        async def same() -> Any:
            try:
                return await state_of(cluster) == before
            except (aiohttp.ClientError, Refused):
                return False

        await until(f"the same state after {order}", same, 15.0)


ORDERS = list(itertools.permutations(("engine", "node", "control", "gateway")))


async def test_restarts_in_two_orders_end_in_the_same_state(cluster: Cluster) -> None:
    await _same_state_after(cluster, [ORDERS[0], ORDERS[-1]])


@pytest.mark.proof
@pytest.mark.timeout(600)
async def test_restarts_in_any_order_end_in_the_same_state(cluster: Cluster) -> None:
    await _same_state_after(cluster, ORDERS)


async def test_of_two_nodes_with_one_host_id_the_newer_wins_and_the_older_says_why(cluster: Cluster) -> None:
    await cluster.start_control()
    engine = await cluster.start_engine("a", "m")
    older = await cluster.start_node("twin", {"older": engine})
    await cluster.start_gateway()
    await cluster.until_answers("m")
    newer = cluster.process("newer", *older.arguments[1:])
    await newer.start()
    await newer.notice("registered")
    assert await older.ended() == 4
    assert "newer" in older.text()
    assert "twin" in older.text()
    assert newer.running
    await cluster.until_answers("m")


async def test_a_new_model_is_routable_within_three_seconds(cluster: Cluster) -> None:
    await cluster.start_control()
    engine = await cluster.start_engine("a", "m")
    await cluster.start_node("a", {"engine": engine})
    await cluster.start_gateway()
    await cluster.until_answers("m")
    async with cluster.http.post(f"{engine}/fake/script", json={"add_models": ["org/new:7b"]}) as answer:
        assert answer.status == 200
    assert await cluster.until_answers("org/new:7b", within=5.0) < 3.0


async def test_an_engine_with_a_key_is_reached_through_the_relay_and_its_key_stays_on_the_node(
    cluster: Cluster,
) -> None:
    await cluster.start_control()
    engine = await cluster.start_engine("a", "m", "--key", "engine-secret")
    key_file = cluster.folder / "engine.key"
    key_file.write_text("engine-secret\n")
    await cluster.start_node("a", {}, settings=[{"name": "locked", "url": engine, "key_file": str(key_file)}])
    await cluster.start_gateway()
    await cluster.until_answers("m")
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        (service,) = await hive.list_services()
    assert [w.WhichOneof("way") for w in service.upstream.ways] == ["relayed"]
    for path in cluster.state.rglob("*"):
        if path.is_file():
            assert b"engine-secret" not in path.read_bytes(), path
    for process in (cluster.control, cluster.gateway):
        assert "engine-secret" not in process.text()


async def test_the_inventory_example_prints_a_real_cluster(cluster: Cluster) -> None:
    await cluster.start_control()
    engine = await cluster.start_engine("a", "m")
    await cluster.start_node("a", {"engine": engine})
    environment = {"GENIEHIVE_CONTROL": cluster.control_address, "GENIEHIVE_KEY": cluster.admin_key}
    process = await asyncio.create_subprocess_exec(
        cluster.control.arguments[0],
        "examples/inventory.py",
        stdout=asyncio.subprocess.PIPE,
        cwd=cluster.root,
        env={**os.environ, **environment, "PYTHONPATH": str(cluster.root)},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"a/engine" in out
    assert b"m" in out
