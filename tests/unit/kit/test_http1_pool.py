"""Which connections are kept, and what happens when a kept one has died."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from geniehive.kit.http1 import Client, ConnectFailed, ConnectionLost, Truncated
from tests.support.http1_client import on_both_loops, until
from tests.support.raw_server import Peer, RawServer


async def get(client: Client, server: RawServer) -> bytes:
    async with await client.request(server.origin, "GET", "/", []) as response:
        return await response.read()


async def keep_answering(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer(b"%d" % peer.number)


@on_both_loops
async def test_reuse(client: Client) -> None:
    async with RawServer(keep_answering) as server:
        for _ in range(5):
            assert await get(client, server) == b"0"
        assert (client.idle_count(server.origin), client.open_count) == (1, 1)


@on_both_loops
async def test_as_many_as_needed_but_not_more_kept(client: Client) -> None:
    client._max_idle = 2
    async with RawServer(keep_answering) as server:
        answers = [await client.request(server.origin, "GET", "/", []) for _ in range(4)]
        assert client.open_count == 4
        for answer in answers:
            answer.release()
            answer.release()
        assert (client.idle_count(server.origin), client.open_count) == (2, 2)


@on_both_loops
async def test_a_complete_answer_is_kept_even_unread(client: Client) -> None:
    async with RawServer(keep_answering) as server:
        (await client.request(server.origin, "GET", "/", [])).release()
        assert await get(client, server) == b"0"


@on_both_loops
async def test_an_answer_left_in_the_middle_is_closed(client: Client) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        await peer.gone()
        left.set()

    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [])
        response.release()
        await left.wait()
        with pytest.raises(Truncated):
            await response.read()


@pytest.mark.parametrize("extra", [b"Connection: close\r\n", b"Connection: Close, x\r\n"])
@on_both_loops
async def test_close_is_honoured(client: Client, extra: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(extra=extra)
        await peer.gone()

    async with RawServer(script) as server:
        assert await get(client, server) == b"ok"
        assert client.open_count == 0


@on_both_loops
async def test_http_1_0_is_not_kept(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await peer.gone()

    async with RawServer(script) as server:
        assert await get(client, server) == b"ok"
        assert client.open_count == 0


@on_both_loops
async def test_an_idle_connection_that_the_server_closes_leaves_at_once(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()

    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [])
        assert await response.read() == b"ok"
        await until(lambda: client.open_count == 0)
        assert client.idle_count(server.origin) == 0


@on_both_loops
async def test_idle_ttl(client: Client) -> None:
    client._idle_ttl = 0.05
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.gone()
        gone.set()

    async with RawServer(script) as server:
        assert await get(client, server) == b"ok"
        assert client.idle_count(server.origin) == 1
        await gone.wait()
        assert client.open_count == 0


@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"HTT", b"\0"])
@pytest.mark.parametrize("together", [True, False])
@on_both_loops
async def test_bytes_after_an_answer_end_the_connection(client: Client, more: bytes, together: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number:
            await peer.answer(b"good")
            return
        if together:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + more)
        else:
            await peer.answer()
            await peer.send(more)
        await peer.gone()

    async with RawServer(script) as server:
        assert await get(client, server) == b"ok"
        await until(lambda: client.open_count == 0)
        assert await get(client, server) == b"good"


async def die_on_reuse(peer: Peer) -> None:
    """The first connection answers once and closes when the second request is there."""
    await peer.request()
    await peer.answer(b"%d" % peer.number)
    await peer.head()
    if peer.number:
        await peer.answer(b"again")


@on_both_loops
async def test_sent_again_once_when_a_kept_connection_had_died(client: Client) -> None:
    async with RawServer(die_on_reuse) as server:
        assert await get(client, server) == b"0"
        async with await client.request(server.origin, "POST", "/", [], b"body") as response:
            assert await response.read() == b"1"
        assert server.connections == 2


@on_both_loops
async def test_not_more_than_once(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number < 2:
            await peer.answer()
            await peer.head()

    async with RawServer(script) as server:
        first, second = [await client.request(server.origin, "GET", "/", []) for _ in range(2)]
        first.release()
        second.release()
        with pytest.raises(ConnectionLost) as lost:
            await client.request(server.origin, "GET", "/", [])
        assert lost.value.sent
        assert server.connections == 3  # the second try went over a fresh one, not over the other kept one


@on_both_loops
async def test_the_second_try_says_that_the_first_was_sent(client: Client) -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.head()
        server._server.close()
        closed.set()

    async with RawServer(script) as server:
        assert await get(client, server) == b"ok"
        with pytest.raises(ConnectFailed) as failed:
            await get(client, server)
        assert failed.value.sent


@on_both_loops
async def test_not_sent_again_when_an_answer_had_begun(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.request()
        await peer.send(b"HTTP/1.1 2")

    async with RawServer(script) as server:
        assert await get(client, server) == b"ok"
        with pytest.raises(ConnectionLost):
            await get(client, server)
        assert server.connections == 1


@on_both_loops
async def test_a_streamed_body_takes_a_fresh_connection(client: Client) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with RawServer(die_on_reuse) as server:
        assert await get(client, server) == b"0"
        async with await client.request(server.origin, "POST", "/", [], body()) as response:
            assert await response.read() == b"1"


@on_both_loops
async def test_close_ends_everything(client: Client) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number:
            await peer.answer()
        await peer.gone()
        if peer.number == 0:
            left.set()

    async with RawServer(script) as server:
        waiting = asyncio.create_task(get(client, server))
        await until(lambda: server.connections == 1)
        assert await get(client, server) == b"ok"
        await client.close()
        assert (client.open_count, client.idle_count(server.origin)) == (0, 0)
        with pytest.raises(ConnectionLost):
            await waiting
        await left.wait()
        with pytest.raises(ConnectFailed) as refused:
            await get(client, server)
        assert not refused.value.sent
        await client.close()
