"""Engines that fail while their nodes are there: out of the table, with the reason, and back."""

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

import geniehive
from geniehive.v1.registry_pb2 import (
    CONDITION_REASON_ENGINE,
    CONDITION_REASON_OUTCOMES,
    CONDITION_REASON_PROBE,
    HEALTH_STATE_DEGRADED,
)
from geniehive.v1.routing_pb2 import Upstream
from tests.support.daemons import Cluster
from tests.support.fake_engine import FakeEngine
from tests.support.fake_process import FakeProcess
from tests.support.processes import until

PROBE = "probe_interval=0.4"


class Watched:
    """A cluster, and what its control holds of the service a/engine."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def upstream(self) -> Upstream:
        async with geniehive.connect(self.cluster.control_address, key=self.cluster.admin_key) as hive:
            return next(s.upstream for s in await hive.list_services() if s.service.service == "a/engine")

    async def until_out(self, *reasons: Any, within: float = 20.0) -> float:
        async def check() -> bool:
            upstream = await self.upstream()
            return not upstream.routable and upstream.condition.reason in reasons

        return await until("a/engine is out", check, within)

    async def until_in(self, within: float = 20.0) -> float:
        async def check() -> bool:
            return (await self.upstream()).routable

        return await until("a/engine is back", check, within)

    async def served_by(self, calls: int = 4) -> set[str]:
        answers = [await self.cluster.chat("m") for _ in range(calls)]
        assert {status for status, _, _ in answers} == {200}
        return {headers["x-geniehive-host"] for _, _, headers in answers}


@pytest.fixture
async def spare(cluster: Cluster) -> AsyncIterator[FakeEngine]:
    """A control that reports often, and the host b, that has the model m too."""
    await cluster.start_control(PROBE, "usage.report_interval=0.2")
    async with FakeEngine("openai", ["m"], name="b") as engine:
        await cluster.start_node("b", {"engine": engine.url})
        yield engine


async def test_an_engine_that_its_node_calls_well_and_that_is_not(cluster: Cluster, spare: FakeEngine) -> None:
    async with FakeEngine("vllm", ["m"], name="a") as engine:
        await cluster.start_node("a", {"engine": engine.url})
        await cluster.start_gateway()
        watched = Watched(cluster)
        await watched.until_in()
        # As vLLM says it when its engine is dead and its server is not: the list of models is there.
        engine.behave(where="/health", status=503, body="")
        out = await watched.until_out(CONDITION_REASON_PROBE)
        detail = (await watched.upstream()).condition.detail
        assert detail.startswith("control's probe failed: at http://127.0.0.1")
        assert "it answers 503" in detail
        assert await watched.served_by() == {"b"}
        engine.behave_well()
        back = await watched.until_in()
        print(f"unwell: out after {out:.1f} s, back after {back:.1f} s")
        assert {r.path for r in engine.requests if r.method == "POST"} <= {"/v1/chat/completions"}


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_an_engine_that_dies_or_freezes(cluster: Cluster, spare: FakeEngine, how: str) -> None:
    async with FakeProcess("ollama", ["m"], name="a") as engine:
        await cluster.start_node("a", {"engine": engine.url})
        await cluster.start_gateway()
        watched = Watched(cluster)
        await watched.until_in()
        if how == "killed":
            await engine.kill()
        else:
            engine.signal(signal.SIGSTOP)
        out = await watched.until_out(CONDITION_REASON_ENGINE, CONDITION_REASON_PROBE)
        reason = (await watched.upstream()).condition
        assert await watched.served_by() == {"b"}
        if how == "killed":
            await engine.start()
        else:
            engine.signal(signal.SIGCONT)
        back = await watched.until_in()
        print(f"{how}: out after {out:.1f} s ({reason.reason}: {reason.detail}), back after {back:.1f} s")


async def test_an_engine_that_answers_probes_and_fails_requests(cluster: Cluster, spare: FakeEngine) -> None:
    async with FakeEngine("openai", ["m"], name="a") as engine:
        await cluster.start_node("a", {"engine": engine.url})
        await cluster.start_gateway()
        watched = Watched(cluster)
        await watched.until_in()
        engine.behave(status=502, body="{}")

        async def failed_enough() -> bool:
            await watched.served_by(10)
            return not (await watched.upstream()).routable

        out = await until("gateways' reports take it out", failed_enough, 30.0)
        condition = (await watched.upstream()).condition
        assert condition.reason == CONDITION_REASON_OUTCOMES
        assert condition.detail.startswith("gateways report: ")
        engine.behave_well()
        back = await watched.until_in()
        assert (await watched.upstream()).condition.health == HEALTH_STATE_DEGRADED

        async def well_again() -> bool:
            await watched.served_by(10)
            return (await watched.upstream()).condition.reason != CONDITION_REASON_OUTCOMES

        proved = await until("it has proved itself", well_again)
        print(f"failing: out after {out:.1f} s, back on trial after {back:.1f} s, well after {proved:.1f} s more")
