"""Answers that end badly: truncated, malformed, too large, refused."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from geniehive.kit.http1 import (
    Client,
    ConnectFailed,
    ConnectionLost,
    HttpError,
    Origin,
    ProtocolError,
    TooLarge,
    Truncated,
)
from tests.support.http1_client import on_both_loops
from tests.support.raw_server import Peer, RawServer


def answering(data: bytes, *, reset: bool = False) -> RawServer:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        if reset:
            peer.reset()

    return RawServer(script)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nConnection: close\r\n\r\n4\r\npart\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
@on_both_loops
async def test_a_short_body_is_never_a_success(client: Client, data: bytes, whole: bool) -> None:
    async with answering(data) as server:
        response = await client.request(server.origin, "GET", "/", [])
        with pytest.raises(Truncated, match=str(server.port)) as truncated:
            if whole:
                await response.read()
            else:
                assert await response.chunk() == b"part"  # what came is given out first
                await response.chunk()
        assert truncated.value.sent
        with pytest.raises(Truncated):
            await response.chunk()
        assert client.open_count == 0


@on_both_loops
async def test_a_reset_is_not_the_end_of_a_body_without_length(client: Client) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        await go.wait()
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.reset()

    # The server stays on this loop's sockets; uvloop's have no setsockopt, so it is enough that asyncio proves it.
    if "uvloop" in type(asyncio.get_running_loop()).__module__:
        pytest.skip("no SO_LINGER")
    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [])
        assert await response.chunk() == b"part"
        go.set()
        with pytest.raises(Truncated):
            await response.chunk()


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("reset", [True, False])
@on_both_loops
async def test_no_head(client: Client, data: bytes, reset: bool) -> None:
    async with answering(data, reset=reset) as server:
        with pytest.raises(ConnectionLost) as lost:
            await client.request(server.origin, "GET", "/", [])
        assert lost.value.sent
        assert server.connections == 1  # a fresh connection: not sent again


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    ],
)
@on_both_loops
async def test_garbage(client: Client, data: bytes) -> None:
    async with answering(data) as server:
        with pytest.raises(ProtocolError, match=str(server.port)):
            await client.request(server.origin, "GET", "/", [])
        assert client.open_count == 0


@on_both_loops
async def test_a_head_just_under_the_limit_with_a_body_over_it(client: Client) -> None:
    body = b"y" * 200_000
    head = b"HTTP/1.1 200 OK\r\nA: " + b"x" * 60_000 + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with answering(head + body) as server, await client.request(server.origin, "GET", "/", []) as response:
        assert await response.read() == body


@pytest.mark.parametrize("rest", [b"zz\r\n", b"1\r\nab\r\n", b"0\r\nT: " + b"x" * 70_000, b"1;" + b"x" * 70_000])
@on_both_loops
async def test_garbage_in_a_body(client: Client, rest: bytes) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        await go.wait()
        await peer.send(rest)
        await peer.gone()

    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [])
        assert await response.chunk() == b"part"
        go.set()
        with pytest.raises(ProtocolError):
            await response.read()


@pytest.mark.parametrize("length", [b"Content-Length: 500000\r\n", b""])
@on_both_loops
async def test_too_large(client: Client, length: bytes) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + b"x" * 500_000) as server:
        response = await client.request(server.origin, "GET", "/", [])
        with pytest.raises(TooLarge):
            await response.read(499_999)
        assert client.open_count == 0
        async with await client.request(server.origin, "GET", "/", []) as response:
            assert len(await response.read(500_000)) == 500_000


@on_both_loops
async def test_nobody_there(client: Client) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        origin = Origin("http", "127.0.0.1", unused.getsockname()[1])
        with pytest.raises(ConnectFailed, match=str(origin)) as failed:
            await client.request(origin, "GET", "/", [])
    assert not failed.value.sent
    assert str(failed.value) == f"{origin} can't be reached: Connection refused"


@on_both_loops
async def test_what_cannot_be_sent_opens_nothing(client: Client) -> None:
    async with answering(b"") as server:
        with pytest.raises(ValueError, match="header"):
            await client.request(server.origin, "GET", "/", [("a", "b\nc: d")])
    assert server.connections == 0


@on_both_loops
async def test_a_failing_source_ends_the_request_with_its_error(client: Client) -> None:
    class Gone(Exception):
        pass

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise Gone

    async with RawServer(script) as server:
        with pytest.raises(Gone):
            await client.request(server.origin, "POST", "/", [], body())
        assert client.open_count == 0


def test_errors_are_one_family() -> None:
    assert not issubclass(HttpError, OSError)
    assert all(
        issubclass(kind, HttpError) for kind in (ConnectFailed, ConnectionLost, ProtocolError, TooLarge, Truncated)
    )
