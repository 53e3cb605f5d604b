"""Nothing grows without bound: neither what an upstream sends nor what it does not take."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from geniehive.kit import flow
from geniehive.kit.http1 import Client
from tests.support.http1_client import on_both_loops, until
from tests.support.raw_server import Peer, RawServer

PIECE = 1 << 16
TOTAL = 1 << 26


@on_both_loops
async def test_a_slow_reader_stops_the_upstream(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        for _ in range(TOTAL // PIECE):
            await peer.send(bytes(PIECE))

    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [])
        (connection,) = client._open
        await until(lambda: connection._paused)
        for _ in range(500):
            await asyncio.sleep(0)
        most, size = connection._size, 0
        while data := await response.chunk():
            most = max(most, len(data))
            size += len(data)
        assert size == TOTAL
        # uvloop takes up to 250 KiB at once, on top of what was there
        assert most <= (2 * PIECE if "uvloop" not in type(asyncio.get_running_loop()).__module__ else 320 << 10)


@on_both_loops
async def test_a_slow_upstream_stops_the_source(client: Client) -> None:
    given = 0
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await read_on.wait()
        _, body = await peer.request()
        await peer.answer(b"%d" % len(body))

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        while given < TOTAL:
            given += PIECE
            yield bytes(PIECE)

    async with RawServer(script) as server:
        asking = asyncio.create_task(client.request(server.origin, "POST", "/", [], body()))
        await until(lambda: any(connection._drained for connection in client._open))
        for _ in range(500):
            await asyncio.sleep(0)
        assert given < TOTAL // 2  # most of it in the kernel's buffers
        (connection,) = client._open
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() <= flow.HELD + PIECE + 100
        read_on.set()
        async with await asking as response:
            assert await response.read() == b"%d" % TOTAL


@pytest.mark.parametrize("streamed", [True, False])
@on_both_loops
async def test_an_early_answer_ends_the_upload(client: Client, streamed: bool) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too long", b"413 Content Too Large")
        await peer.gone()
        left.set()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with RawServer(script) as server:
        sent = body() if streamed else bytes(TOTAL)
        async with await client.request(server.origin, "POST", "/", [], sent) as response:
            assert response.status == 413
            assert await response.read() == b"too long"
        assert client.idle_count(server.origin) == 0
        await left.wait()
