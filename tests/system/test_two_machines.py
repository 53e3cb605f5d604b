"""A second machine joins, serves, and is cut off in every way that a cable, a clock and people can. Each test says what
a user sees.

The machines are two network namespaces (`tests.support.machines`), each with the usual ports to itself; the engine of
the second one listens on its loopback only.
"""

import asyncio
import json
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import machines
from tests.support.machines import Cable, Machine
from tests.support.processes import Process, until

_LACKING = machines.needed()
pytestmark = [
    pytest.mark.skipif(_LACKING is not None, reason=str(_LACKING)),
    pytest.mark.timeout(180),
    # Ports and names are each test's own, but five daemons a test are enough for one machine.
    pytest.mark.xdist_group("machines"),
]

LEASE = 2.5
MODEL = "qwen3:8b"
_CLOCKS = [Path(p) for p in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")]
FAKE_CLOCK = next((found for p in _CLOCKS if (found := p / "faketime" / "libfaketime.so.1").exists()), None)


class Pair:
    """`desk` runs `up --lan`; `attic` has an engine on its loopback, and joins."""

    def __init__(self, desk: Machine, attic: Machine, cable: Cable) -> None:
        self.desk, self.attic, self.cable = desk, attic, cable
        self.up: Process
        self.engine: Process
        self.joined: Process

    async def start(self, *options: str) -> None:
        self.up = self.desk.process("up", "-P", "-m", "geniehive.cli", "up", "--lan", "--no-embedded", *options)
        await self.up.start()
        self.engine = self.attic.process(
            *("engine", "-m", "tests.support.fake_engine", "--port", "11434", "--runtime", "ollama"),
            *("--models", MODEL, "--name", "attic"),
        )
        await self.engine.start()
        await self.engine.notice("ready")
        await self.up.notice("ready", within=40)

    async def token(self, *options: str) -> str:
        code, out, err = await self.desk.geniehive("tokens", "create", "--json", *options)
        assert code == 0, err
        token: str = json.loads(out)["token"]
        return token

    async def join(self, *options: str, token: str | None = None, machine: Machine | None = None) -> Process:
        """Starts `join`; does not wait."""
        machine = machine or self.attic
        token = token or await self.token()
        address = f"{self.desk.address}:8804"
        self.joined = machine.process("join", "-P", "-m", "geniehive.cli", "join", address, "--token", token, *options)
        return await self.joined.start()

    async def started(self, *options: str) -> "Pair":
        """Everything runs, and the attic's engine answers."""
        await self.start()
        await self.join(*options)
        await self.until_answered()
        return self

    async def chat(self, at: str | None = None, **more: Any) -> tuple[int, Any, Any]:
        """Asks the desk's gateway, from the desk."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **more}
        url = f"{at or 'http://127.0.0.1:8800'}/v1/chat/completions"
        return await self.desk.ask(url, body, self.desk.client_key())

    async def answered(self) -> bool:
        return (await self.chat())[0] == 200

    async def until_answered(self, within: float = 30.0) -> float:
        return await until("the attic's engine answers", self.answered, within)

    async def refused(self) -> Any:
        """The error of a call that is not served; None if it is."""
        status, body, _ = await self.chat()
        return None if status == 200 else (status, body)

    async def until_refused(self, within: float = 10.0) -> float:
        return await until("the attic's engine is out", self.refused, within)

    async def status(self) -> Any:
        code, out, err = await self.desk.geniehive("status", "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with machines.two_machines(tmp_path) as (desk, attic, cable):
        made = Pair(desk, attic, cable)
        yield made
    _show_logs(tmp_path)


def _show_logs(folder: Path) -> None:
    for log in sorted(folder.rglob("*.log")):
        print(f"--- {log.relative_to(folder)}\n{log.read_text(errors='replace')[-4000:]}")


async def test_a_line_joins_a_machine_and_its_loopback_engine_serves(pair: Pair) -> None:
    await pair.start()
    token = await pair.token()
    begun = time.monotonic()
    await pair.join("--name", "attic", token=token)
    await pair.until_answered()
    print(f"FIGURE join to routable {time.monotonic() - begun:.2f} s")
    status, body, headers = await pair.chat()
    assert status == 200, body
    assert headers["x-geniehive-host"] == "attic"
    assert headers["x-fake-engine"] == "attic"
    # The engine's own port can't be reached from the desk; the relay's speaks TLS, and to gateways alone.
    assert (await pair.desk.ask(f"http://{pair.attic.address}:11434/api/tags"))[0] == 0
    assert (await pair.desk.ask(f"http://{pair.attic.address}:8803/attic/ollama/v1/chat/completions", {}))[0] == 0
    code, out, err = await pair.desk.geniehive("status")
    assert code == 0, err
    assert "relay" in out
    # The token is used up, and is nowhere but where it was shown.
    code, _, err = await pair.attic.geniehive("join", f"{pair.desk.address}:8804", "--token", token, "--name", "other")
    assert code != 0, err
    for file in (*pair.desk.state.rglob("*"), *pair.attic.state.rglob("*")):
        if file.is_file():
            assert token.encode() not in file.read_bytes(), file
            if file.suffix in (".pem", ".key"):
                assert file.stat().st_mode & 0o077 == 0, file
    # A restart needs no token.
    pair.joined.signal(signal.SIGTERM)
    assert await pair.joined.ended() in (0, 143)
    again = pair.attic.process("join-again", "-P", "-m", "geniehive.cli", "join")
    await again.start()
    await pair.until_answered()
    # It leaves: gone at once, and its daemon ends by itself.
    code, out, err = await pair.attic.geniehive("leave")
    assert code == 0, err
    await pair.until_refused(within=3)
    await again.ended()
    assert [h["host_id"] for h in (await pair.status())["hosts"] if h["host_id"] == "attic"] == []


@pytest.mark.proof
async def test_the_cable_is_pulled_and_plugged(pair: Pair) -> None:
    await pair.started("--name", "attic")
    await pair.cable.pull()
    out = await pair.until_refused()
    status, body = await pair.refused()
    print(f"FIGURE cable pulled: refused after {out:.2f} s with {status} {body['error']['message']}")
    assert status == 503
    assert "attic" in body["error"]["message"]
    await pair.cable.plug()
    back = await pair.until_answered()
    print(f"FIGURE cable plugged: answers after {back:.2f} s")
    assert out < LEASE + 2
    assert back < 15


@pytest.mark.proof
@pytest.mark.parametrize("sender", ["desk", "attic"])
async def test_one_direction_is_dead(pair: Pair, sender: str) -> None:
    await pair.started("--name", "attic")
    machine = pair.desk if sender == "desk" else pair.attic
    await pair.cable.drop(machine)
    out = await pair.until_refused(within=20)
    status, body = await pair.refused()
    print(f"FIGURE nothing from {sender} arrives: refused after {out:.2f} s with {status} {body['error']['message']}")
    await pair.cable.heal(machine)
    back = await pair.until_answered()
    print(f"FIGURE healed: answers after {back:.2f} s")
    assert status in (503, 504)
    assert out < 10
    assert back < 20


@pytest.mark.proof
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
async def test_a_cable_that_loses_packets(pair: Pair) -> None:
    await pair.started("--name", "attic")
    await pair.cable.lose(pair.attic, 10)
    outcomes: list[int] = []
    begun = time.monotonic()
    while time.monotonic() - begun < 20:
        outcomes.append((await pair.chat())[0])
    await pair.cable.lose(pair.attic, 0)
    print(f"FIGURE 10 % of packets lost: {outcomes.count(200)} of {len(outcomes)} calls answered")
    assert set(outcomes) <= {200, 503, 504}
    assert outcomes.count(200) > len(outcomes) / 2
    await pair.until_answered()


@pytest.mark.proof
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
async def test_a_firewall_in_front_of_the_relay(pair: Pair) -> None:
    await pair.start()
    await pair.cable.block(pair.attic, 8803)
    await pair.join("--name", "attic")

    async def seen() -> Any:
        code, out, _ = await pair.desk.geniehive("status")
        return "8803" in out and "firewall" in out and code == 0

    took = await until("status says what to do", seen, 20)
    status, body = await pair.refused()
    print(f"FIGURE firewall: seen after {took:.1f} s; a call gets {status} {body['error']['message']}")
    assert status == 503
    assert "8803" in body["error"]["message"]
    await pair.cable.block(pair.attic, 0)
    back = await pair.until_answered()
    print(f"FIGURE firewall opened: answers after {back:.1f} s")


@pytest.mark.proof
async def test_a_long_way_between(pair: Pair) -> None:
    delay = 0.15
    await pair.start()
    # Both directions of both links, since each machine connects to the other one.
    for machine, port, target in ((pair.desk, 9805, 8805), (pair.attic, 9803, 8803)):
        proxy = machine.process(
            f"proxy-{port}",
            *("-m", "tests.support.slow_proxy", f"{machine.address}:{port}", f"127.0.0.1:{target}", str(delay)),
        )
        await proxy.start()
        await proxy.notice("ready")
    await pair.join("--name", "attic")
    await pair.until_answered()
    pair.joined.signal(signal.SIGTERM)
    await pair.joined.ended()
    # From now on the long way.
    kept = pair.attic.state / "tls" / "cluster.json"
    kept.write_text(kept.read_text().replace(":8805", ":9805"))
    again = pair.attic.process(
        *("join-again", "-P", "-m", "geniehive.cli", "join"),
        environment={"GENIEHIVE_NODE__RELAY__ADVERTISE": f"{pair.attic.address}:9803"},
    )
    await again.start()
    await pair.until_answered()
    took = []
    for _ in range(20):
        begun = time.monotonic()
        status, body, headers = await pair.chat()
        took.append(time.monotonic() - begun)
        assert status == 200, body
        assert headers["x-geniehive-host"] == "attic"
    print(f"FIGURE {delay} s each way: 20 of 20 calls, median {sorted(took)[10]:.2f} s")
    assert sorted(took)[10] > 2 * delay, "the proxy is not in the way"
    # One round trip for each call: connections are kept.
    assert sorted(took)[10] < 3 * delay
    assert "lost control" not in "".join(f.read_text() for f in (pair.attic.state / "logs").glob("node.log"))


@pytest.mark.proof
async def test_certificates_are_renewed_without_a_call_lost(pair: Pair) -> None:
    life = 24.0
    pair.desk.environment = {"GENIEHIVE_CONTROL__TLS__CERTIFICATE_DAYS": str(life / 86400)}
    await pair.started("--name", "attic")
    first = (pair.attic.state / "tls" / "node.pem").read_bytes()
    begun = time.monotonic()
    outcomes: list[int] = []
    while time.monotonic() - begun < 2 * life:
        outcomes.append((await pair.chat())[0])
        await asyncio.sleep(0.05)
    answered = f"{outcomes.count(200)} of {len(outcomes)} calls answered"
    print(f"FIGURE certificates of {life:g} s, for {2 * life:g} s: {answered}")
    assert set(outcomes) == {200}
    assert (pair.attic.state / "tls" / "node.pem").read_bytes() != first
    for machine in (pair.desk, pair.attic):
        assert "lost control" not in (machine.state / "logs" / "node.log").read_text().split("registered as")[-1]
    # Whoever comes back proves himself by a newer one.
    pair.joined.signal(signal.SIGTERM)
    await pair.joined.ended()
    again = pair.attic.process("join-again", "-P", "-m", "geniehive.cli", "join")
    await again.start()
    await pair.until_answered()


@pytest.mark.proof
async def test_control_is_killed_and_comes_back(pair: Pair) -> None:
    await pair.started("--name", "attic")
    (control,) = [p for p in psutil.Process(pair.up.pid).children(recursive=True) if "geniehive_control" in p.cmdline()]
    outcomes: list[int] = []
    for kill in (True, False):
        if kill:
            control.kill()
        for _ in range(60):
            outcomes.append((await pair.chat())[0])
            await asyncio.sleep(0.05)
    print(f"FIGURE control killed: {outcomes.count(200)} of {len(outcomes)} calls answered")
    assert set(outcomes) == {200}

    async def online() -> bool:
        hosts = (await pair.status())["hosts"]
        return all(h["condition"]["availability"] == "available" for h in hosts) and len(hosts) == 2

    await until("both hosts are back", online, 20)


@pytest.mark.proof
async def test_a_new_address_heals_within_a_lease(pair: Pair) -> None:
    await pair.started("--name", "attic")
    await pair.cable.readdress(pair.attic, "10.77.0.77")
    begun = time.monotonic()

    async def at_the_new_address() -> bool:
        status, _, headers = await pair.chat()
        return status == 200 and headers["x-geniehive-host"] == "attic"

    await until("it answers at its new address", at_the_new_address, 20)
    print(f"FIGURE address changed: answers after {time.monotonic() - begun:.2f} s")
    assert time.monotonic() - begun < LEASE + 2


@pytest.mark.proof
@pytest.mark.skipif(FAKE_CLOCK is None, reason="needs libfaketime")
@pytest.mark.parametrize("hours", [-7, 7])
async def test_a_clock_that_is_hours_wrong(pair: Pair, hours: int) -> None:
    pair.attic.environment = {
        "LD_PRELOAD": str(FAKE_CLOCK),
        "FAKETIME": f"{hours:+d}h",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    await pair.started("--name", "attic")
    status, body, headers = await pair.chat()
    assert status == 200, body
    assert headers["x-geniehive-host"] == "attic"
    # It stays, and comes back.
    pair.joined.signal(signal.SIGTERM)
    await pair.joined.ended()
    await pair.until_refused()
    again = pair.attic.process("join-again", "-P", "-m", "geniehive.cli", "join")
    await again.start()
    await pair.until_answered()


@pytest.mark.proof
async def test_a_gateway_on_the_second_machine(pair: Pair) -> None:
    await pair.start()
    other = pair.desk.process(
        *("engine", "-m", "tests.support.fake_engine", "--port", "8080", "--runtime", "llamacpp"),
        *("--models", "desk-model", "--name", "desk"),
    )
    await other.start()
    await other.notice("ready")
    await pair.join("--name", "attic", "--gateway")
    await pair.until_answered()

    async def asked(model: str) -> bool:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        url = "http://127.0.0.1:8800/v1/chat/completions"
        return (await pair.attic.ask(url, body, pair.desk.client_key()))[0] == 200

    await until("the attic's gateway reaches its own engine", lambda: asked(MODEL), 20)
    # The desk's engine listens on the desk's loopback: by the desk's relay.
    await until("the attic's gateway reaches the desk's engine", lambda: asked("desk-model"), 20)
    # Control dies: the attic's gateway serves on.
    code, _, err = await pair.attic.geniehive("leave")
    assert code == 0, err


@pytest.mark.proof
async def test_a_forgotten_machine_is_out_at_once_and_stays_out(pair: Pair) -> None:
    await pair.started("--name", "attic")
    code, _, err = await pair.desk.geniehive("hosts", "forget", "attic", "--force")
    assert code == 0, err
    await pair.until_refused(within=3)
    assert await pair.joined.ended() != 0
    said = pair.joined.text()
    assert "join" in said
    again = pair.attic.process("join-again", "-P", "-m", "geniehive.cli", "join")
    await again.start()
    assert await again.ended() != 0
    assert "revoked" in again.text() or "forg" in again.text(), again.text()


@pytest.mark.proof
async def test_a_clone_gets_a_name_of_its_own(pair: Pair) -> None:
    await pair.started("--name", "attic")
    # The image of the attic, started on another machine (the desk, with a machine id of its own).
    folder = pair.desk.folder / "clone"
    shutil.copytree(pair.attic.state, folder, ignore=shutil.ignore_patterns("*.lock", "up.json", "logs"))
    clone = pair.desk.process(
        *("clone", "-P", "-m", "geniehive.cli", "join", "--relay-listen", "0.0.0.0:9803"),
        environment={"GENIEHIVE_STATE_DIR": str(folder)},
    )
    await clone.start()

    async def both() -> bool:
        hosts = {h["host_id"]: h["condition"]["availability"] for h in (await pair.status())["hosts"]}
        return hosts.get("attic") == "available" and hosts.get("attic-2") == "available"

    await until("original and clone are both there", both, 20)
    assert pair.joined.running
    # Under its own certificate from now on.
    clone.signal(signal.SIGTERM)
    await clone.ended()
    await clone.start()
    await until("original and clone are both there again", both, 20)
    text = "".join(log.read_text() for log in (folder / "logs").glob("node*"))
    assert "attic-2" in text
