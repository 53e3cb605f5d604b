"""A cancelled caller: in every phase the server sees the end of the connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from geniehive.kit.http1 import Client, Origin, Response, Truncated
from geniehive.kit.http_server import taking_upload
from tests.support.http1_client import on_both_loops, until
from tests.support.raw_server import Peer, RawServer


class Watch:
    """A server script that says when it was reached, holds, and says when the client has left."""

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.reached = asyncio.Event()
        self.read_on = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.reader.read(1)
        if self.first:
            await peer.send(self.first)
        self.reached.set()
        await self.read_on.wait()
        await peer.gone()
        self.left.set()


async def cancel(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def prove(client: Client, watch: Watch) -> None:
    assert client.open_count == 0
    watch.read_on.set()
    await watch.left.wait()


@on_both_loops
async def test_while_connecting(client: Client) -> None:
    watch = Watch()
    async with RawServer(watch) as server:  # never answers the TLS handshake
        origin = Origin("https", "127.0.0.1", server.port)
        task = asyncio.create_task(client.request(origin, "GET", "/", []))
        await watch.reached.wait()
        await cancel(task)
        await prove(client, watch)


@on_both_loops
async def test_while_sending_bytes(client: Client) -> None:
    watch = Watch()
    async with RawServer(watch) as server:
        task = asyncio.create_task(client.request(server.origin, "POST", "/", [], bytes(1 << 26)))
        await watch.reached.wait()
        await cancel(task)
        await prove(client, watch)


@on_both_loops
async def test_while_sending_a_stream_that_the_server_does_not_take(client: Client) -> None:
    watch = Watch()
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            closed.set()

    source = body()
    async with RawServer(watch) as server:
        task = asyncio.create_task(client.request(server.origin, "POST", "/", [], source))
        await until(lambda: any(connection._drained for connection in client._open))
        await cancel(task)
        await prove(client, watch)
        await source.aclose()  # type: ignore[attr-defined]
        assert closed.is_set()


@on_both_loops
async def test_while_the_source_is_slow(client: Client) -> None:
    watch = Watch()
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with RawServer(watch) as server:
        task = asyncio.create_task(client.request(server.origin, "POST", "/", [], body()))
        await watch.reached.wait()
        await cancel(task)
        assert closed.is_set()  # the source has ended before the caller goes on
        await prove(client, watch)


@on_both_loops
async def test_while_waiting_for_the_head(client: Client) -> None:
    watch = Watch()
    async with RawServer(watch) as server:
        task = asyncio.create_task(client.request(server.origin, "GET", "/", []))
        await watch.reached.wait()
        await cancel(task)
        await prove(client, watch)


@pytest.mark.parametrize("whole", [True, False])
@on_both_loops
async def test_while_reading(client: Client, whole: bool) -> None:
    watch = Watch(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    reading = asyncio.Event()

    async def use(server: RawServer) -> None:
        response = await client.request(server.origin, "GET", "/", [])
        assert await response.chunk() == b"part"
        reading.set()
        await (response.read() if whole else response.chunk())

    async with RawServer(watch) as server:
        task = asyncio.create_task(use(server))
        await reading.wait()
        await cancel(task)
        await prove(client, watch)


@on_both_loops
async def test_at_the_moment_the_answer_comes(client: Client) -> None:
    """The future is done but the task has not run: the answer must not be lost with its connection open."""
    watch = Watch(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    async with RawServer(watch) as server:
        task = asyncio.create_task(client.request(server.origin, "GET", "/", []))
        await until(lambda: any(connection.head_done for connection in client._open))
        task.cancel()
        try:
            response = await task
        except asyncio.CancelledError:
            pass
        else:
            response.abort()
        await prove(client, watch)


@pytest.mark.parametrize("whole", [True, False])
@on_both_loops
async def test_an_abort_from_elsewhere_ends_a_read(client: Client, whole: bool) -> None:
    watch = Watch(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    reading = asyncio.Event()
    response: Response | None = None

    async def use(server: RawServer) -> None:
        nonlocal response
        response = await client.request(server.origin, "GET", "/", [])
        assert await response.chunk() == b"part"
        reading.set()
        await (response.read() if whole else response.chunk())

    async with RawServer(watch) as server:
        task = asyncio.create_task(use(server))
        await reading.wait()
        assert response is not None
        response.abort()
        with pytest.raises(Truncated):
            await task
        await prove(client, watch)


@on_both_loops
async def test_a_server_that_takes_nothing_learns_of_it_too(client: Client) -> None:
    """By a reset: the end of what was sent would come behind all of it."""
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        transport = peer.writer.transport
        transport.pause_reading()
        with taking_upload(transport):
            asking.cancel()
            while not transport.is_closing():
                await asyncio.sleep(0.01)
        left.set()

    async with RawServer(script) as server:
        asking = asyncio.create_task(client.request(server.origin, "POST", "/", [], bytes(1 << 26)))
        with pytest.raises(asyncio.CancelledError):
            await asking
        await left.wait()
