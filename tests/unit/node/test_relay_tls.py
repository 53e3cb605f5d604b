"""The relay off loopback: TLS, and gateways of this cluster only."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from geniehive.kit import address, tls
from geniehive.kit.http1 import Client
from geniehive.membership import Credential
from geniehive.rules.identity import CONTROL_NAME, PeerKind, relay_name
from geniehive_node.door import Door
from geniehive_node.engines.ask import Target
from geniehive_node.relay import ERROR_HEADER, RelayServer
from tests.support.fake_engine import FakeEngine
from tests.support.raw_server import Peer, RawServer
from tests.unit.node.support import DAY, Ca, until
from tests.unit.node.test_relay import CHAT, HELLO, target

NAME = relay_name("cluster-1", "h")


@pytest.fixture
def ca() -> Ca:
    return Ca()


@pytest.fixture
async def node(ca: Ca, tmp_path: Path) -> Credential:
    return ca.credential(tmp_path / "node", PeerKind.NODE, "h")


@pytest.fixture
async def gateway(ca: Ca, tmp_path: Path) -> Credential:
    return ca.credential(tmp_path / "gateway", PeerKind.GATEWAY, "g")


@pytest.fixture
async def relay(node: Credential) -> AsyncIterator[RelayServer]:
    async with Client() as client:
        made = RelayServer(client, 1.0, credential=node)
        await made.start("127.0.0.1:0")
        yield made
        await made.stop(0.1)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as made:
        yield made


class Caller:
    """A gateway, or somebody else."""

    def __init__(self, relay: RelayServer, http: aiohttp.ClientSession, context: ssl.SSLContext) -> None:
        self.relay = relay
        self.http = http
        self.context = context

    def ask(self, path: str = "/h/engine" + CHAT, **more: Any) -> Any:
        more = {"json": HELLO, **more}
        return self.http.post(self.relay.base_url + path, ssl=self.context, server_hostname=NAME, **more)

    async def refused(self) -> tuple[int, str]:
        async with self.ask() as answer:
            body = await answer.json()
            assert body["error"]["code"] == answer.headers[ERROR_HEADER]
            return answer.status, body["error"]["message"]


async def raw(relay: RelayServer, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = address.split(relay.base_url.removeprefix("https://"))
    return await asyncio.open_connection(host, port, ssl=context, server_hostname=NAME)


async def test_a_gateway_of_the_cluster_gets_through_without_a_token(
    relay: RelayServer, gateway: Credential, http: aiohttp.ClientSession
) -> None:
    assert relay.base_url.startswith("https://127.0.0.1:")
    async with FakeEngine("vllm", ["m"], key="engine-key") as engine:
        relay.serve("h", {"engine": target(engine.url, "engine-key")})
        async with Caller(relay, http, gateway.client_context()).ask() as answer:
            assert answer.status == 200
        (asked,) = [r for r in engine.requests if r.path == CHAT]
    assert asked.header("authorization") == "Bearer engine-key"


async def test_control_may_ask_whether_engines_are_well_and_nothing_else(
    relay: RelayServer, ca: Ca, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    context = control_context(ca, tmp_path)
    async with FakeEngine("vllm", ["m"]) as engine:
        relay.serve("h", {"engine": replace(target(engine.url), runtime="vllm")})
        url = relay.base_url + "/h/engine/probe"
        async with http.get(url, ssl=context, server_hostname=NAME) as answer:
            assert answer.status == 200
        status, message = await Caller(relay, http, context).refused()
        assert (status, "nothing else" in message) == (403, True)
        assert [asked.path for asked in engine.requests] == ["/health"]


def control_context(ca: Ca, folder: Path) -> ssl.SSLContext:
    """With control's own certificate."""
    key = tls.new_key()
    public = tls.read_csr(tls.make_csr(key, "control"))
    chain = ca.authority.issue(public, "control", now=time.time(), seconds=DAY, dns=[CONTROL_NAME]).chain
    file = folder / "control.pem"
    file.write_bytes(chain + key)
    context = ssl.create_default_context(cadata=ca.bundle.decode())
    context.load_cert_chain(file)
    return context


async def test_not_without_a_certificate(relay: RelayServer, node: Credential, http: aiohttp.ClientSession) -> None:
    context = ssl.create_default_context(cadata=node.ca.decode())
    relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    with pytest.raises(aiohttp.ClientError):
        async with Caller(relay, http, context).ask():
            pass
    assert not relay.in_flight()


async def test_not_without_tls(relay: RelayServer) -> None:
    host, port = address.split(relay.base_url.removeprefix("https://"))
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /h/engine/v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        assert b"HTTP" not in await reader.read()
    writer.close()


@pytest.mark.parametrize("why", ["another CA", "expired", "not valid yet"])
async def test_not_with_a_certificate_that_tls_refuses(
    relay: RelayServer, ca: Ca, tmp_path: Path, http: aiohttp.ClientSession, why: str
) -> None:
    more = {"another CA": {}, "expired": {"seconds": DAY, "ago": 2 * DAY}, "not valid yet": {"ago": -5 * DAY}}[why]
    issuer = Ca() if why == "another CA" else ca
    stranger = issuer.credential(tmp_path / "stranger", PeerKind.GATEWAY, "g", **more)
    context = stranger.client_context()
    context.load_verify_locations(cadata=ca.bundle.decode())
    with pytest.raises(aiohttp.ClientError):
        async with Caller(relay, http, context).ask():
            pass


@pytest.mark.parametrize(
    ("kind", "cluster_id", "word"),
    [
        (PeerKind.NODE, None, "that of node g"),
        (PeerKind.GATEWAY, "cluster-2", "of another cluster, cluster-2"),
    ],
)
async def test_only_gateways_of_this_cluster(
    relay: RelayServer,
    ca: Ca,
    tmp_path: Path,
    http: aiohttp.ClientSession,
    kind: PeerKind,
    cluster_id: str | None,
    word: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = ca.credential(tmp_path / "other", kind, "g", cluster_id=cluster_id)
    relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    status, message = await Caller(relay, http, other.client_context()).refused()
    assert status == 403
    assert word in message
    assert word in caplog.text


async def test_not_with_a_certificate_that_was_revoked(
    relay: RelayServer, node: Credential, gateway: Credential, http: aiohttp.ClientSession, ca: Ca
) -> None:
    assert gateway.serial is not None
    relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    caller = Caller(relay, http, gateway.client_context())
    async with caller.ask() as answer:
        assert answer.status == 502  # it was admitted
    node.believe(ca.bundle, [gateway.serial])
    status, message = await caller.refused()
    assert (status, "was revoked" in message) == (403, True)


async def test_revoked_in_the_middle_of_an_answer_it_is_cut_off_at_once(
    relay: RelayServer, node: Credential, gateway: Credential, ca: Ca, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n")
        await peer.gone()
        gone.set()

    assert gateway.serial is not None
    other = ca.credential(tmp_path / "other", PeerKind.GATEWAY, "other")
    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        async with Caller(relay, http, gateway.client_context()).ask() as answer:
            assert await answer.content.readany() == b"data: one\n\n"
            kept_reader, kept = await raw(relay, other.client_context())
            await until(lambda: relay._door.connections == 2)
            node.believe(ca.bundle, [gateway.serial])
            async with asyncio.timeout(5):
                with pytest.raises(aiohttp.ClientError):
                    await answer.content.read()
                await gone.wait()
        await until(lambda: relay._door.connections == 1)
        assert not kept_reader.at_eof()
        kept.close()


@pytest.mark.parametrize(
    "path",
    [
        "/h/engine/v1/models",
        "/h/engine/../engine/v1/chat/completions",
        "/h/engine/v1/../v1/chat/completions",
        "/h/engine/v1/%2e%2e/v1/chat/completions",
        "/h/engine//v1/chat/completions",
        "/h/engine/v1/chat%2fcompletions",
        "/h/engine/v1/chat/completions/..",
        "/h/engine/v1/chat/completions%00",
        "/h/engine\\v1\\chat\\completions",
        "/../h/engine/v1/chat/completions",
        "//h/engine/v1/chat/completions",
        "/H/engine/v1/chat/completions",
        "http://127.0.0.1:1/v1/chat/completions",
        "/h/engine/v1/CHAT/completions",
        "/h/engine/api/pull",
    ],
)
async def test_no_spelling_leads_elsewhere(relay: RelayServer, gateway: Credential, path: str) -> None:
    relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    reader, writer = await raw(relay, gateway.client_context())
    writer.write(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 404 ", b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), head
    writer.close()


async def test_a_stream_arrives_byte_by_byte_as_it_was_sent(
    relay: RelayServer, gateway: Credential, http: aiohttp.ClientSession
) -> None:
    pieces = [bytes([n % 256]) * (n * 137 % 40_000 + 1) for n in range(60)]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await peer.send(b"0\r\n\r\n")

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        async with Caller(relay, http, gateway.client_context()).ask() as answer:
            assert await answer.read() == b"".join(pieces)


async def test_when_the_gateway_leaves_the_engine_is_let_go(relay: RelayServer, gateway: Credential) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        gone.set()

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        _, writer = await raw(relay, gateway.client_context())
        writer.write(b"POST /h/engine/v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
        await asked.wait()
        writer.transport.abort()
        async with asyncio.timeout(5):
            await gone.wait()
        await until(lambda: not relay.in_flight())


async def test_a_slow_gateway_holds_the_engine_back(relay: RelayServer, gateway: Credential) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                await peer.send(b"x" * 65536)
                sent += 65536
        except ConnectionError:
            pass

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        reader, writer = await raw(relay, gateway.client_context())
        writer.write(b"POST /h/engine/v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        (inside,) = relay._door._open
        assert isinstance(inside, asyncio.Transport)
        # What this process holds of it; the rest is in the buffers of sockets.
        assert inside.get_write_buffer_size() < 1_000_000
        assert 0 < sent < 50_000_000
        writer.transport.abort()


async def test_a_new_certificate_is_shown_to_the_next_connection(
    relay: RelayServer, node: Credential, gateway: Credential, ca: Ca
) -> None:
    def shown(writer: asyncio.StreamWriter) -> int:
        return int(writer.get_extra_info("peercert")["serialNumber"], 16)

    old_reader, old = await raw(relay, gateway.client_context())
    assert f"{shown(old):x}" == node.serial
    assert node.accept(ca.issue(node.request("h"), PeerKind.NODE, "h").chain)
    _, new = await raw(relay, gateway.client_context())
    assert f"{shown(new):x}" == node.serial
    assert shown(old) != shown(new)
    assert not old_reader.at_eof()
    old.close()
    new.close()


async def test_who_may_not_ask_is_not_kept_waiting_for(
    relay: RelayServer, ca: Ca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geniehive_node.relay._REFUSED_SECONDS", 0.05)
    reader, writer = await raw(relay, ca.credential(tmp_path / "n", PeerKind.NODE, "n").client_context())
    async with asyncio.timeout(5):
        try:
            assert not await reader.read()
        except ConnectionError:
            pass
    writer.close()


async def test_too_many_connections(
    relay: RelayServer, node: Credential, gateway: Credential, http: aiohttp.ClientSession
) -> None:
    relay._door = Door(node, connections=1)
    relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    _, writer = await raw(relay, gateway.client_context())
    await until(lambda: relay._door.connections == 1)
    caller = Caller(relay, http, gateway.client_context())
    async with caller.ask() as answer:
        assert (answer.status, answer.headers[ERROR_HEADER], answer.headers["retry-after"]) == (503, "busy", "1")
    writer.close()
    await until(lambda: relay._door.connections == 0)
    async with caller.ask() as answer:
        assert answer.status == 502
