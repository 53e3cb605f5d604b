"""TLS between machines of one cluster: both sides have certificates of its CA, by names that nobody looks up."""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from geniehive.kit import flow, state, tls
from geniehive.kit.http1 import Client, ConnectFailed, ConnectionLost, IdleTimeout, Origin, Timeouts, Truncated
from tests.support.http1_client import on_both_loops, until
from tests.support.raw_server import Peer, RawServer

NAME = "0123.node.c-1.geniehive.internal"
PIECE = 1 << 16
TOTAL = 1 << 24


class House:
    """A cluster's CA, with contexts of members. trusting: the CA that they believe, if it is another."""

    def __init__(self) -> None:
        self.authority = tls.Authority(*tls.make_authority("c-1", time.time()))
        self.server = self.context(ssl.PROTOCOL_TLS_SERVER)
        self.client = self.context(ssl.PROTOCOL_TLS_CLIENT)

    def context(self, protocol: int, trusting: "House | None" = None, certificate: bool = True) -> ssl.SSLContext:
        made = ssl.SSLContext(protocol)
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=(trusting or self).authority.bundle.decode())
        if certificate:
            key = tls.new_key()
            request = tls.read_csr(tls.make_csr(key, "x"))
            issued = self.authority.issue(request, "x", now=time.time(), seconds=600.0, dns=[NAME])
            path = state.temporary(issued.chain + key)
            made.load_cert_chain(path)
            path.unlink()
        return made


@pytest.fixture(scope="module")
def house() -> House:
    return House()


def named(server: RawServer, name: str = NAME) -> Origin:
    return Origin("https", "127.0.0.1", server.port, name)


async def echo(peer: Peer) -> None:
    while True:
        _, body = await peer.request()
        await peer.answer(body)


@on_both_loops
async def test_a_server_is_known_by_its_name_and_connections_are_kept_by_it(client: Client, house: House) -> None:
    client._ssl_context = house.client
    async with RawServer(echo, tls=house.server) as server:
        for _ in range(2):
            async with await client.request(named(server), "POST", "/", [], b"x") as response:
                assert await response.read() == b"x"
        assert server.connections == 1
        assert client.idle_count(named(server)) == 1
        assert client.idle_count(Origin("https", "127.0.0.1", server.port)) == 0
        for name, said in (("elsewhere.c-1.geniehive.internal", "is for somebody else"), (None, "not trusted")):
            with pytest.raises(ConnectFailed, match=said) as failed:
                await client.request(Origin("https", "127.0.0.1", server.port, name), "GET", "/", [])
            assert not failed.value.sent


@on_both_loops
async def test_a_server_of_another_ca(client: Client, house: House) -> None:
    client._ssl_context = house.client
    async with RawServer(echo, tls=House().server) as server:
        with pytest.raises(ConnectFailed, match="not of this cluster's CA"):
            await client.request(named(server), "GET", "/", [])


@on_both_loops
async def test_a_server_that_speaks_no_tls(client: Client, house: House) -> None:
    client._ssl_context = house.client

    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with RawServer(script) as server:
        with pytest.raises(ConnectFailed, match="does not speak TLS"):
            await client.request(named(server), "GET", "/", [])


@pytest.mark.parametrize("certificate", [False, True])
@on_both_loops
async def test_a_server_that_does_not_accept_our_certificate(client: Client, house: House, certificate: bool) -> None:
    client._ssl_context = house.context(ssl.PROTOCOL_TLS_CLIENT, certificate=certificate)
    async with RawServer(echo, tls=house.context(ssl.PROTOCOL_TLS_SERVER, trusting=House())) as server:
        with pytest.raises(ConnectFailed, match="did not let us in; does it accept our certificate") as failed:
            await client.request(named(server), "POST", "/", [], b"x")
        assert not failed.value.sent
        asyncio.get_running_loop().set_exception_handler(None)


@on_both_loops
async def test_a_server_that_let_us_in_and_left_has_perhaps_read_the_request(client: Client, house: House) -> None:
    client._ssl_context = house.client

    async def script(peer: Peer) -> None:
        await peer.request()

    async with RawServer(script, tls=house.server) as server:
        with pytest.raises(ConnectionLost) as lost:
            await client.request(named(server), "POST", "/", [], b"x")
        assert lost.value.sent


@on_both_loops
async def test_who_is_not_admitted_gets_no_request(client: Client, house: House) -> None:
    client._ssl_context = house.client
    seen: list[Mapping[str, Any]] = []

    def admit(certificate: Mapping[str, Any]) -> str | None:
        seen.append(certificate)
        return "its certificate was revoked"

    client._admit = admit
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())

    async with RawServer(script, tls=house.server) as server:
        with pytest.raises(ConnectFailed, match="is not spoken to: its certificate was revoked") as failed:
            await client.request(named(server), "GET", "/", [])
        assert not failed.value.sent
    assert not heads
    assert seen[0]["subjectAltName"] == (("DNS", NAME),)


@on_both_loops
async def test_connections_that_are_no_longer_admitted_are_closed(client: Client, house: House) -> None:
    client._ssl_context = house.client
    refused: set[str] = set()
    asked: list[str] = []

    def admit(certificate: Mapping[str, Any]) -> str | None:
        asked.append(certificate["serialNumber"])
        return "it was revoked" if certificate["serialNumber"] in refused else None

    client._admit = admit

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        if peer.number == 2:
            await peer.answer()
        await peer.gone()

    async with RawServer(script, tls=house.server) as server, RawServer(echo) as plain:
        answer = await client.request(named(server), "GET", "/", [])
        waiting = asyncio.create_task(client.request(named(server), "GET", "/", []))
        await until(lambda: server.connections == 2 and client.open_count == 2)
        for origin in (named(server), plain.origin):
            await (await client.request(origin, "GET", "/", [])).read()
        assert len(asked) == 3  # once per connection, and not for plain ones
        assert await answer.chunk() == b"part"
        client.recheck()
        assert client.open_count == 4
        refused.update(asked)
        client.recheck()
        assert client.open_count == 1
        with pytest.raises(Truncated, match=r"was left \(it was revoked\) in the middle"):
            await answer.chunk()
        with pytest.raises(ConnectionLost, match=r"was left \(it was revoked\)"):
            await waiting


@on_both_loops
async def test_bytes_are_exact_both_ways(client: Client, house: House) -> None:
    client._ssl_context = house.client
    payload = os.urandom(3 << 20)

    async def source() -> AsyncIterator[bytes]:
        for at in range(0, len(payload), 70001):
            yield payload[at : at + 70001]

    async with RawServer(echo, tls=house.server) as server:
        for body in (payload, source()):
            async with await client.request(named(server), "POST", "/", [], body) as response:
                assert await response.read() == payload


@on_both_loops
async def test_a_slow_reader_stops_the_server(client: Client, house: House) -> None:
    client._ssl_context = house.client
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        while sent < TOTAL:
            await peer.send(bytes(PIECE))
            sent += PIECE

    async with RawServer(script, tls=house.server) as server:
        response = await client.request(named(server), "GET", "/", [])
        (connection,) = client._open
        await until(lambda: connection._paused)
        settled = -1
        while settled != sent:
            settled = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert sent < TOTAL
        most, size = connection._size, 0
        while data := await response.chunk():
            most = max(most, len(data))
            size += len(data)
        assert size == TOTAL
        # What TLS reads at once comes on top of what was there.
        assert most <= 400 << 10


@on_both_loops
async def test_a_slow_server_stops_the_source(client: Client, house: House) -> None:
    client._ssl_context = house.client
    given = 0
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await read_on.wait()
        _, body = await peer.request()
        await peer.answer(b"%d" % len(body))

    async def source() -> AsyncIterator[bytes]:
        nonlocal given
        while given < TOTAL:
            given += PIECE
            yield bytes(PIECE)

    async with RawServer(script, tls=house.server) as server:
        asking = asyncio.create_task(client.request(named(server), "POST", "/", [], source()))
        await until(lambda: any(connection._drained for connection in client._open))
        for _ in range(500):
            await asyncio.sleep(0)
        assert given < TOTAL
        (connection,) = client._open
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() <= flow.HELD + 2 * PIECE
        read_on.set()
        async with await asking as response:
            assert await response.read() == b"%d" % TOTAL


@on_both_loops
async def test_who_leaves_takes_the_connection_along(client: Client, house: House) -> None:
    client._ssl_context = house.client
    asked, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        asked.set()
        await peer.gone()
        left.set()

    async with RawServer(script, tls=house.server) as server, asyncio.timeout(5):
        waiting = asyncio.create_task(client.request(named(server), "GET", "/", []))
        await asked.wait()
        waiting.cancel()
        await left.wait()
        left.clear()
        async with await client.request(named(server), "GET", "/", []) as response:
            assert await response.chunk() == b"part"
        await left.wait()
        assert client.open_count == 0


@pytest.mark.parametrize("reading", [False, True])
@on_both_loops
async def test_a_nearer_limit_for_silence(client: Client, house: House, reading: bool) -> None:
    client._ssl_context = house.client

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        await peer.gone()

    async with RawServer(script, tls=house.server) as server, asyncio.timeout(5):
        response = await client.request(named(server), "GET", "/", [], timeouts=Timeouts(idle=60))
        assert await response.chunk() == b"part"
        if reading:
            waiting = asyncio.create_task(response.chunk())
            await asyncio.sleep(0)
        response.limit_silence(90, "for nothing")
        response.limit_silence(0.05, "since its host left")
        with pytest.raises(IdleTimeout, match=r"sent nothing for 0.05 s since its host left"):
            await (waiting if reading else response.chunk())
