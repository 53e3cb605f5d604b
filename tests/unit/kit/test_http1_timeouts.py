import asyncio
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest

from geniehive.kit.http1 import (
    Client,
    ConnectTimeout,
    FirstByteTimeout,
    HttpError,
    IdleTimeout,
    Origin,
    Timeouts,
    TotalTimeout,
)
from geniehive.kit.http1.connection import Connection
from tests.support.http1_client import on_both_loops
from tests.support.raw_server import Peer, RawServer

SHORT = 0.05
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


async def silent(peer: Peer) -> None:
    await peer.gone()


@pytest.mark.parametrize(
    ("timeouts", "kind"),
    [(Timeouts(connect=SHORT), ConnectTimeout), (Timeouts(connect=None, total=SHORT), TotalTimeout)],
)
@on_both_loops
async def test_connect(client: Client, timeouts: Timeouts, kind: type[HttpError]) -> None:
    async with RawServer(silent) as server:  # takes the connection, but never answers the handshake
        with pytest.raises(kind, match=str(server.port)) as late:
            await client.request(Origin("https", "127.0.0.1", server.port), "GET", "/", [], None, timeouts)
        assert not late.value.sent


@pytest.mark.parametrize(
    ("timeouts", "kind"),
    [
        (Timeouts(first_byte=SHORT), FirstByteTimeout),
        (Timeouts(first_byte=None, total=SHORT), TotalTimeout),
        (Timeouts(first_byte=SHORT, total=10), FirstByteTimeout),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
@on_both_loops
async def test_no_head(client: Client, timeouts: Timeouts, kind: type[HttpError], streamed: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with RawServer(silent) as server:
        start = time.monotonic()
        with pytest.raises(kind, match=str(server.port)) as late:
            await client.request(server.origin, "POST", "/", [], body() if streamed else b"x", timeouts)
        assert late.value.sent
        assert time.monotonic() - start > SHORT * 0.9
        assert client.open_count == 0


@pytest.mark.parametrize("whole", [True, False])
@on_both_loops
async def test_a_body_that_stops(client: Client, whole: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"part")
        await peer.gone()

    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [], None, Timeouts(idle=SHORT))
        with pytest.raises(IdleTimeout):
            if whole:
                await response.read()
            else:
                assert await response.chunk() == b"part"
                await response.chunk()
        assert client.open_count == 0


@on_both_loops
async def test_a_server_that_takes_nothing(client: Client) -> None:
    hold = asyncio.Event()

    async def script(peer: Peer) -> None:
        await hold.wait()

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with RawServer(script) as server:
        with pytest.raises(IdleTimeout, match="took nothing"):
            await client.request(server.origin, "POST", "/", [], body(), Timeouts(idle=SHORT))


@pytest.mark.parametrize("whole", [True, False])
@on_both_loops
async def test_total_ends_a_body_that_drips(client: Client, whole: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.005)

    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [], None, Timeouts(idle=5, total=SHORT))
        with pytest.raises(TotalTimeout):
            if whole:
                await response.read()
            else:
                while await response.chunk():
                    pass


class Clock:
    """As much of a loop as a connection's limits need; time passes only by `pass_time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, object]] = []
        self.armed = 0
        self._loop = asyncio.new_event_loop()

    def time(self) -> float:
        return self.now

    def create_future(self) -> "asyncio.Future[None]":
        return self._loop.create_future()

    def call_at(self, at: float, call: object) -> "Clock.Handle":
        self.armed += 1
        self.timers.append((at, call))
        return Clock.Handle(self, (at, call))

    class Handle:
        def __init__(self, clock: "Clock", entry: tuple[float, object]) -> None:
            self.clock, self.entry = clock, entry

        def cancel(self) -> None:
            self.clock.timers.remove(self.entry)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [entry for entry in self.timers if entry[0] <= end]:
            entry = min(due, key=lambda each: each[0])
            self.timers.remove(entry)
            self.now = entry[0]
            entry[1]()  # type: ignore[operator]
        self.now = end

    def close(self) -> None:
        self._loop.close()


class Wire(asyncio.Transport):
    def write(self, data: object) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def waiting(step: object) -> None:
    """Runs a coroutine up to the future it awaits."""
    step.send(None)  # type: ignore[attr-defined]


def arrive(connection: Connection, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


def test_a_stream_of_tokens_arms_hardly_a_timer_and_idle_counts_only_waiting() -> None:
    clock = Clock()
    loop = cast(asyncio.AbstractEventLoop, clock)
    connection = Connection(Origin("http", "box", 1), loop, memoryview(bytearray(100)), lambda _: None)
    connection.connection_made(Wire())
    connection.send(b"", None, False, Timeouts(idle=10), float("inf"))
    head = connection.wait_head()
    waiting(head)
    arrive(connection, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    head.close()
    for _ in range(10_000):  # 100 s of tokens, 10 ms apart
        token = connection.wait_body(1)
        waiting(token)
        clock.pass_time(0.01)
        arrive(connection, b"1\r\nx\r\n")
        assert connection.take() == b"x"
        token.close()
    assert clock.armed <= 15
    clock.pass_time(1000)  # nobody waits
    assert connection.error is None
    last = connection.wait_body(1)
    waiting(last)
    clock.pass_time(9)
    assert connection.error is None
    clock.pass_time(1.1)
    assert isinstance(connection.error, IdleTimeout)
    last.close()
    clock.close()
