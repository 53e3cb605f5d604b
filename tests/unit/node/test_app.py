import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from geniehive.failures import Refused
from geniehive.kit import config, lifecycle
from geniehive.kit.errors import EXIT_SUPERSEDED, UserError
from geniehive.rules.operations import Operation
from geniehive.v1 import failure_pb2, registry_pb2
from geniehive_node import app
from geniehive_node.settings import NodeSettings
from tests.support.fake_engine import FakeEngine
from tests.unit.node.support import DEADLINE, FakeControl, until


@pytest.fixture
async def control() -> AsyncIterator[FakeControl]:
    async with FakeControl() as made:
        yield made


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("geniehive.kit.notices.send", lambda kind, **fields: sent.append({"notice": kind, **fields}))
    return sent


class Node:
    def __init__(self, control: FakeControl, folder: Path, *overrides: str) -> None:
        self.stop = lifecycle.Stop()
        self.settings = config.load(
            NodeSettings,
            prefix="X",
            overrides=[
                f"control={control.address}",
                f"state_dir={folder}",
                "relay.listen=127.0.0.1:0",
                "discover=false",
                "poll_interval=0.02",
                *overrides,
            ],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(app.serve(self.settings, self.stop))
        try:
            yield task
        finally:
            self.stop.ask("the test ends")
            async with asyncio.timeout(DEADLINE):
                await asyncio.wait([task])


def services(control: FakeControl) -> dict[str, registry_pb2.Service]:
    """As offered last."""
    offers = control.of("inventory")
    return {s.service: s for s in offers[-1].services} if offers else {}


async def test_finds_registers_and_follows_an_engine(
    control: FakeControl, tmp_path: Path, notices: list[dict[str, Any]]
) -> None:
    async with FakeEngine("ollama", ["a"]) as engine:
        port = engine.url.rpartition(":")[2]
        node = Node(control, tmp_path, "host_id=h", "discover=true", f"discover_ports=[{port}]")
        async with node.running():
            await until(lambda: "h/ollama" in services(control))
            service = services(control)["h/ollama"]
            assert service.ways[0].direct.base_url == engine.url
            assert service.ways[0].direct.same_host_only
            assert service.ways[1].HasField("relayed")
            engine.add_model("b")
            await until(lambda: [a.asset_id for a in services(control)["h/ollama"].assets] == ["a", "b"])
            await until(lambda: control.of("load"))
    kinds = [n["notice"] for n in notices]
    assert sorted(kinds) == ["first_look", "ready", "registered"]
    found = next(n for n in notices if n["notice"] == "first_look")
    assert (found["chat_models"], found["engines"]) == (1, ["ollama"])
    assert control.of("load")[0].services[0].service == "h/ollama"
    (hello,) = control.of("hello")
    assert control.metadata[0]["x-geniehive-node-key"] == (tmp_path / "node.key").read_text().strip()
    assert hello.host_id == "h"


async def test_the_last_word_is_that_it_stops(control: FakeControl, tmp_path: Path) -> None:
    node = Node(control, tmp_path, "host_id=h")
    async with node.running() as task:
        await until(lambda: control.of("inventory"))
        node.stop.ask("test")
        async with asyncio.timeout(DEADLINE):
            await task
    assert control.of("inventory")[-1].host.condition.reason == registry_pb2.CONDITION_REASON_STOPPING
    assert control.closed_by_node == 1


async def test_no_key_of_an_engine_leaves_the_node(
    control: FakeControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import aiohttp

    monkeypatch.setenv("BOX_KEY", "sesame")
    async with FakeEngine("vllm", ["m"], key="sesame") as engine:
        node = Node(control, tmp_path, "host_id=h", f"engines=[{{url: {engine.url}, name: box, key_env: BOX_KEY}}]")
        with caplog.at_level("DEBUG"):
            async with node.running():
                await until(lambda: "h/box" in services(control) and services(control)["h/box"].assets)
                offer = control.of("inventory")[-1]
                (way,) = services(control)["h/box"].ways
                assert way.HasField("relayed")
                # By the relay, as a gateway would.
                url = f"{offer.relay.base_urls[0]}/h/box/v1/chat/completions"
                headers = {"authorization": f"Bearer {offer.relay.token}"}
                async with aiohttp.ClientSession() as http:
                    body = {"model": "m", "messages": []}
                    async with http.post(url, json=body, headers=headers) as answer:
                        assert answer.status == 200
    assert not any(b"sesame" in m.SerializeToString() for m in control.received)
    assert "sesame" not in caplog.text
    assert offer.relay.token not in caplog.text


async def test_a_dead_configured_engine_is_listed_and_a_demonstration_that_never_ran_is_not(
    control: FakeControl, tmp_path: Path, notices: list[dict[str, Any]]
) -> None:
    demo = "{url: http://127.0.0.1:9, name: demo, runtime: llamacpp, demo: true, operations: [chat, embeddings]}"
    node = Node(control, tmp_path, "host_id=h", f"engines=[{{url: http://127.0.0.1:1, name: box}}, {demo}]")
    async with node.running():
        await until(lambda: services(control))
        assert list(services(control)) == ["h/box"]
        condition = services(control)["h/box"].condition
        assert condition.health == registry_pb2.HEALTH_STATE_UNHEALTHY
        assert "can't be reached" in condition.detail
    assert next(n for n in notices if n["notice"] == "first_look")["chat_models"] == 0


async def test_the_demonstration_engine_is_labelled(control: FakeControl, tmp_path: Path) -> None:
    async with FakeEngine("llamacpp", ["smollm2-135m"]) as engine:
        demo = f"{{url: {engine.url}, name: demo, runtime: llamacpp, demo: true, operations: [chat, embeddings]}}"
        async with Node(control, tmp_path, "host_id=h", f"engines=[{demo}]").running():
            await until(lambda: "h/demo" in services(control))
    service = services(control)["h/demo"]
    assert service.demo
    assert list(map(int, service.operations)) == [Operation.CHAT, Operation.EMBEDDINGS]
    assert not service.assets[0].operations


async def test_a_slow_engine_does_not_hold_back_the_others(
    control: FakeControl, tmp_path: Path, notices: list[dict[str, Any]]
) -> None:
    async with FakeEngine("openai", ["a"]) as quick, FakeEngine("openai", ["b"]) as slow:
        slow.behave(where="all", hold="head")
        engines = f"engines=[{{url: {quick.url}, name: quick}}, {{url: {slow.url}, name: slow}}]"
        node = Node(control, tmp_path, "host_id=h", engines, "first_look_timeout=0.3")
        async with node.running():
            await until(lambda: services(control))
            assert services(control)["h/quick"].assets
            assert not services(control)["h/slow"].assets
            slow.behave_well()
            await until(lambda: services(control)["h/slow"].assets)
    assert next(n for n in notices if n["notice"] == "first_look")["engines"] == ["quick"]


async def test_superseded_it_stops_and_says_why(control: FakeControl, tmp_path: Path) -> None:
    async with Node(control, tmp_path, "host_id=h").running() as task:
        await until(lambda: control.of("inventory"))
        control.kick(Refused(failure_pb2.FAILURE_REASON_SESSION_SUPERSEDED, "a newer session of host h took over"))
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(UserError, match=r"took over.*host_id") as error:
                await task
    assert error.value.exit_code == EXIT_SUPERSEDED


async def test_the_name_that_control_gives_is_kept(control: FakeControl, tmp_path: Path) -> None:
    control.rename = "other-name"
    async with Node(control, tmp_path).running():
        await until(lambda: control.of("inventory"))
        assert control.of("inventory")[-1].host.host_id == "other-name"
        assert control.of("inventory")[-1].relay.host_id == "other-name"
        await until(lambda: (tmp_path / "machine-id").read_text() == "other-name\n")
    async with Node(control, tmp_path).running():
        await until(lambda: len(control.of("hello")) == 2)
    assert control.of("hello")[1].host_id == "other-name"


async def test_a_gateway_of_its_own_cluster_is_refused(control: FakeControl, tmp_path: Path) -> None:
    from tests.unit.node.support import Wire

    listed = {"object": "list", "data": [{"id": "m", "object": "model"}]}
    async with Wire({"GET /v1/models": listed}, server="GenieHive") as gateway:
        gateway.headers["x-geniehive-cluster"] = "cluster-1"
        async with Node(control, tmp_path, "host_id=h", f"engines=[{{url: {gateway.origin}}}]").running():
            await until(lambda: "h/geniehive" in services(control))
            await until(lambda: not services(control)["h/geniehive"].ways)
    assert "circle" in services(control)["h/geniehive"].condition.detail


async def test_works_on_without_control(tmp_path: Path, notices: list[dict[str, Any]]) -> None:
    control = FakeControl()
    await control.start()
    await control.stop()
    node = Node(control, tmp_path, "host_id=h")
    async with node.running():
        await until(lambda: any(n["notice"] == "first_look" for n in notices))
        await control.start()
        await until(lambda: any(n["notice"] == "registered" for n in notices))
    await control.stop()


async def test_secrets_are_for_their_owner_alone(control: FakeControl, tmp_path: Path) -> None:
    async with Node(control, tmp_path).running():
        await until(lambda: control.of("inventory"))
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600
