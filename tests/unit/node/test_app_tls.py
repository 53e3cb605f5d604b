"""The daemon on a machine that joined, and on control's own machine with its relay open to others."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.membership import CLUSTER_FILE, FOLDER
from geniehive.rules.identity import PeerKind, relay_name
from geniehive.v1 import registry_pb2
from geniehive_node.outlook import Outlook
from tests.support.fake_engine import FakeEngine
from tests.unit.node.support import DAY, DEADLINE, Ca, FakeControl, until
from tests.unit.node.test_app import Node, services

WIDE = ("relay.listen=0.0.0.0:0", "relay.advertise=127.0.0.1")
JOINED = ("control=null", *WIDE)


async def chat(control: FakeControl, ca: Ca, folder: Path, service: str) -> int:
    """By the relay that was offered last, as a gateway of the cluster."""
    relay = control.of("inventory")[-1].relay
    assert not relay.HasField("token")
    context = ca.credential(folder, PeerKind.GATEWAY, "g").client_context()
    url = f"{relay.base_urls[0]}/{service}/v1/chat/completions"
    name = relay_name(ca.cluster_id, relay.host_id)
    async with aiohttp.ClientSession() as http:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        async with http.post(url, json=body, ssl=context, server_hostname=name) as answer:
            await answer.read()
            return answer.status


def has_relay(control: FakeControl) -> bool:
    return bool(control.of("inventory")) and bool(control.of("inventory")[-1].relay.base_urls)


async def test_joined_it_serves_its_engines_by_a_relay_of_its_own(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control, FakeEngine("openai", ["m"]) as engine:
        ca.join(tmp_path / "state", "gpu", control.address)
        node = Node(control, tmp_path / "state", *JOINED, f"engines=[{{url: {engine.url}, name: box}}]")
        async with node.running():
            await until(lambda: services(control) and services(control)["gpu/box"].assets)
            (way,) = services(control)["gpu/box"].ways
            assert way.HasField("relayed")
            assert await chat(control, ca, tmp_path / "gateway", "gpu/box") == 200
    assert control.proofs == ["spiffe://cluster-1/node/gpu"]
    assert not (tmp_path / "state" / "node.key").exists()


async def test_with_a_gateway_beside_it_that_one_asks_directly(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control, FakeEngine("openai", ["m"]) as engine:
        ca.credential(tmp_path, PeerKind.GATEWAY, "gpu")
        ca.join(tmp_path, "gpu", control.address)
        async with Node(control, tmp_path, *JOINED, f"engines=[{{url: {engine.url}, name: box}}]").running():
            await until(lambda: services(control) and services(control)["gpu/box"].assets)
    direct, relayed = services(control)["gpu/box"].ways
    assert direct.direct.same_host_only
    assert relayed.HasField("relayed")


async def test_on_controls_machine_the_relay_opens_when_there_is_a_certificate(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl() as control, FakeEngine("vllm", ["m"], key="sesame") as engine:
        key = tmp_path / "key"
        key.write_text("sesame")
        engines = f"engines=[{{url: {engine.url}, name: box, key_file: {key}}}]"
        async with Node(control, tmp_path, "host_id=h", *WIDE, engines).running():
            await until(lambda: services(control) and services(control)["h/box"].assets)
            condition = services(control)["h/box"].condition
            assert condition.reason == registry_pb2.CONDITION_REASON_UNREACHABLE
            assert "tls.listen" in condition.detail
            assert not services(control)["h/box"].ways
            control.ca = control.issuer = ca
            await control.tell_trust()
            await until(lambda: has_relay(control) and services(control)["h/box"].ways)
            assert await chat(control, ca, tmp_path / "gateway", "h/box") == 200
        # The next time it has one from the start.
        async with Node(control, tmp_path, "host_id=h", *WIDE, engines).running():
            await until(lambda: len(control.of("hello")) == 2 and has_relay(control))
    assert len(control.of("certificate_request")) == 1


async def test_renamed_it_is_known_by_the_new_name_from_then_on(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control, FakeEngine("openai", ["m"]) as engine:
        control.rename = "clone-2"
        ca.join(tmp_path / "state", "clone", control.address)
        engines = f"engines=[{{url: {engine.url}, name: box}}]"
        async with Node(control, tmp_path / "state", *JOINED, engines).running():
            await until(lambda: has_relay(control) and services(control).get("clone-2/box"))
            await until(lambda: services(control)["clone-2/box"].ways)
            assert await chat(control, ca, tmp_path / "gateway", "clone-2/box") == 200
        control.rename = None
        async with Node(control, tmp_path / "state", *JOINED).running():
            await until(lambda: len(control.of("hello")) == 2)
    assert control.of("hello")[1].host_id == "clone-2"
    assert json.loads((tmp_path / "state" / FOLDER / CLUSTER_FILE).read_text())["host_id"] == "clone-2"


async def test_another_address_is_offered_at_once_over_another_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[str | None] = ["192.0.2.10"]
    monkeypatch.setattr(Outlook, "_find", lambda _: found())

    async def found() -> str | None:
        return here[0]

    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control:
        ca.join(tmp_path, "gpu", control.address)
        async with Node(control, tmp_path, "control=null", "relay.listen=0.0.0.0:0").running():
            await until(lambda: has_relay(control))
            first = control.of("inventory")[-1].relay.base_urls[0]
            assert first.startswith("https://192.0.2.10:")
            here[0] = None  # no way out: nothing better is known
            async with asyncio.timeout(DEADLINE):
                await asyncio.sleep(0.7)
            assert control.sessions == 1
            here[0] = "192.0.2.11"
            await until(lambda: control.sessions == 2 and len(control.of("hello")) == 2)
            await until(lambda: control.of("inventory")[-1].relay.base_urls[0].startswith("https://192.0.2.11:"))


async def test_an_engine_that_others_can_reach_is_offered_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Outlook, "_find", lambda _: found())

    async def found() -> str:
        return "127.1"  # where the engine is too, without saying that this is loopback

    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control, FakeEngine("ollama", ["m"]) as engine:
        port = engine.url.rpartition(":")[2]
        ca.join(tmp_path, "gpu", control.address)
        sets = ("control=null", "relay.listen=0.0.0.0:0", f"engines=[{{url: {engine.url}, name: box}}]")
        async with Node(control, tmp_path, *sets).running():
            await until(lambda: services(control) and len(services(control)["gpu/box"].ways) == 2)
            direct, relayed = services(control)["gpu/box"].ways
            assert direct.direct.base_url == f"http://127.1:{port}"
            assert not direct.direct.same_host_only
            assert relayed.HasField("relayed")


@pytest.mark.parametrize(("way", "kinds"), [("direct", []), ("relay", ["relayed"])])
async def test_the_operators_word(tmp_path: Path, way: str, kinds: list[str]) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control, FakeEngine("openai", ["m"]) as engine:
        ca.join(tmp_path, "gpu", control.address)
        sets = (*JOINED, f"way={way}", f"engines=[{{url: {engine.url}, name: box, key_env: BOX_KEY}}]")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BOX_KEY", "sesame")
            async with Node(control, tmp_path, *sets).running():
                await until(lambda: services(control) and services(control)["gpu/box"].assets)
                await until(lambda: [w.WhichOneof("way") for w in services(control)["gpu/box"].ways] == kinds)
    if not kinds:
        assert "way: auto" in services(control)["gpu/box"].condition.detail


def start(folder: Path, *overrides: str) -> Any:
    return Node(FakeControl(), folder, "control=null", *overrides)


async def ends(node: Any, words: str) -> int:
    async with node.running() as task:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(UserError, match=words) as error:
                await task
    return error.value.exit_code


async def test_without_its_certificate_it_says_what_to_do(tmp_path: Path) -> None:
    ca = Ca()
    ca.join(tmp_path, "gpu", "192.0.2.1:8805").path.unlink()
    assert await ends(start(tmp_path), r"node\.pem.*geniehive join 192\.0\.2\.1:8805") == EXIT_REFUSED


async def test_an_expired_certificate_is_told_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Ca().join(tmp_path, "gpu", "127.0.0.1:1", seconds=DAY, ago=2 * DAY)
    async with start(tmp_path).running():
        await until(lambda: "by this machine's clock its certificate expired on" in caplog.text)
        await until(lambda: "nothing listens there" in caplog.text)


async def test_another_host_id_than_that_of_the_certificate(tmp_path: Path) -> None:
    Ca().join(tmp_path, "gpu", "127.0.0.1:1")
    await ends(start(tmp_path, "host_id=other"), "joined its cluster as 'gpu'")


async def test_the_relays_port_in_use(tmp_path: Path) -> None:
    ca = Ca()
    taken = await asyncio.start_server(lambda r, w: None, "0.0.0.0", 0)
    port = taken.sockets[0].getsockname()[1]
    async with FakeControl(ca) as control, taken:
        await ends(Node(control, tmp_path, f"relay.listen=0.0.0.0:{port}"), r"relay cannot listen.*relay\.listen")
