"""Asking engines, directly and by relays, on real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from geniehive.kit import address, tls
from geniehive.kit.clock import SystemClock
from geniehive.kit.http1 import Client, Origin, Timeouts
from geniehive.membership import Credential
from geniehive.rules.identity import Peer, PeerKind, relay_name
from geniehive.rules.model import Relay, Service, Way
from geniehive_control import questions
from geniehive_control.authority import OwnCertificate
from geniehive_control.core.probes import Failure, Kind
from geniehive_control.questions import Questions
from geniehive_node.engines.ask import Target
from geniehive_node.relay import RelayServer
from tests.support.fake_engine import FakeEngine
from tests.support.raw_server import Peer as RawPeer
from tests.support.raw_server import RawServer

RELAYED = Way()
TOKEN = "ghr-token"


@pytest.fixture
async def asking() -> AsyncIterator[Questions]:
    made = Questions("c1")
    yield made
    await made.close()


@pytest.fixture
async def relay() -> AsyncIterator[RelayServer]:
    async with Client() as client:
        made = RelayServer(client, 1.0, token=TOKEN)
        await made.start("127.0.0.1:0")
        yield made
        await made.stop(0.1)


def engine(runtime: str) -> Service:
    return Service(service="h/engine", runtime=runtime)


def at(url: str) -> Way:
    return Way(direct_url=url)


def leading_to(relay: RelayServer, url: str, runtime: str) -> Relay:
    relay.serve("h", {"engine": Target(Origin.parse(url), "/v1", None, runtime=runtime)})
    return Relay(host_id="h", base_urls=(relay.base_url,), token=TOKEN)


def closed() -> str:
    return f"http://127.0.0.1:{address.free_port()}"


@pytest.mark.parametrize("runtime", ["ollama", "llamacpp", "vllm", "openai"])
async def test_engines_that_are_well(asking: Questions, relay: RelayServer, runtime: str) -> None:
    async with FakeEngine(runtime, ["m"]) as fake:
        assert await asking.ask(engine(runtime), at(fake.url), None) is None
        assert await asking.ask(engine(runtime), RELAYED, leading_to(relay, fake.url, runtime)) is None
        assert {asked.method for asked in fake.requests} == {"GET"}
        assert len({asked.path for asked in fake.requests}) == 1


async def test_nothing_listens(asking: Questions, relay: RelayServer) -> None:
    failure = await asking.ask(engine("vllm"), at(closed()), None)
    assert failure is not None
    assert (failure.kind, failure.engine) == (Kind.CLOSED, False)
    failure = await asking.ask(engine("vllm"), RELAYED, leading_to(relay, closed(), "vllm"))
    assert failure is not None
    assert (failure.kind, failure.engine) == (Kind.CLOSED, True)
    failure = await asking.ask(engine("vllm"), RELAYED, Relay(host_id="h", base_urls=(closed(),), token=TOKEN))
    assert failure is not None
    assert (failure.kind, failure.engine) == (Kind.CLOSED, False)


async def test_an_engine_that_is_not_well(asking: Questions, relay: RelayServer) -> None:
    async def unwell(peer: RawPeer) -> None:
        await peer.request()
        await peer.answer(b"", b"503 Service Unavailable")

    async with RawServer(unwell) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert await asking.ask(engine("vllm"), at(url), None) == Failure(Kind.UNWELL, "it answers 503")
        failure = await asking.ask(engine("vllm"), RELAYED, leading_to(relay, url, "vllm"))
    assert failure == Failure(Kind.UNWELL, "the engine is not well: it answers 503", engine=True)


async def test_a_silent_engine(asking: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "_DIRECT", Timeouts(connect=1.0, first_byte=0.05, idle=1.0, total=1.0))
    released = asyncio.Event()

    async def silent(peer: RawPeer) -> None:
        await peer.request()
        await released.wait()

    async with RawServer(silent) as server:
        failure = await asking.ask(engine("vllm"), at(f"http://127.0.0.1:{server.port}"), None)
        released.set()
    assert failure == Failure(Kind.SILENT, "no answer within 0.05 s")


async def test_what_breaks_off_and_what_is_no_address(asking: Questions) -> None:
    async def hang_up(peer: RawPeer) -> None:
        await peer.request()

    async with RawServer(hang_up) as server:
        failure = await asking.ask(engine("vllm"), at(f"http://127.0.0.1:{server.port}"), None)
    assert failure is not None
    assert failure.kind is Kind.UNWELL
    failure = await asking.ask(engine("vllm"), at("nonsense"), None)
    assert failure is not None
    assert "malformed" in failure.words


async def test_another_program_at_the_relays_address(asking: Questions) -> None:
    async def stranger(peer: RawPeer) -> None:
        await peer.request()
        await peer.answer(b"not here", b"404 Not Found")

    async with RawServer(stranger) as server:
        relay = Relay(host_id="h", base_urls=(f"http://127.0.0.1:{server.port}",), token=TOKEN)
        failure = await asking.ask(engine("vllm"), RELAYED, relay)
    assert failure == Failure(Kind.UNWELL, "something else answers at the relay's address")


async def test_a_relay_with_two_addresses_is_reached_by_either(asking: Questions, relay: RelayServer) -> None:
    async with FakeEngine("vllm", ["m"]) as fake:
        known = leading_to(relay, fake.url, "vllm")
        two = Relay(host_id="h", base_urls=(closed(), *known.base_urls), token=TOKEN)
        assert await asking.ask(engine("vllm"), RELAYED, two) is None


async def test_a_token_is_not_told(asking: Questions, relay: RelayServer) -> None:
    known = leading_to(relay, closed(), "vllm")
    failure = await asking.ask(engine("vllm"), RELAYED, Relay(host_id="h", base_urls=known.base_urls, token="wrong"))
    assert failure is not None
    assert not failure.engine
    assert "wrong" not in failure.words


async def test_a_relay_by_tls_lets_control_in_by_its_certificate_also_after_it_was_renewed(tmp_path: Path) -> None:
    clock = SystemClock()
    authority = tls.Authority(*tls.make_authority("GenieHive c1", clock.wall()))
    node = Credential(tmp_path, PeerKind.NODE)
    csr = node.request("h")
    node.believe(authority.bundle)
    peer = Peer("c1", PeerKind.NODE, "h")
    dns = [relay_name("c1", "h")]
    issued = authority.issue(tls.read_csr(csr), "h", now=clock.wall(), seconds=9e5, uris=[peer.uri], dns=dns)
    assert node.accept(issued.chain)
    own = OwnCertificate(authority, clock, 9e5)
    async with Client() as client, FakeEngine("vllm", ["m"]) as fake:
        relay = RelayServer(client, 1.0, credential=node)
        await relay.start("127.0.0.1:0")
        relay.serve("h", {"engine": Target(Origin.parse(fake.url), "/v1", None, runtime="vllm")})
        known = Relay(host_id="h", base_urls=(relay.base_url,))
        for _ in range(2):
            asking = Questions("c1", own.client_context)
            assert await asking.ask(engine("vllm"), RELAYED, known) is None
            await asking.close()
            own.renew()
        stranger = Questions("c1", ssl.create_default_context(cadata=authority.bundle.decode()))
        failure = await stranger.ask(engine("vllm"), RELAYED, known)
        await stranger.close()
        assert failure is not None
        assert not failure.engine
        await relay.stop(0.1)
