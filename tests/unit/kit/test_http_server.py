import asyncio
import gc
import itertools
import socket
import struct
import sys
import weakref
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from geniehive.kit import http_server
from geniehive.kit.http1 import Client, Origin
from geniehive.kit.http_answer import Answer
from geniehive.kit.http_server import Connection, fault
from geniehive.kit.outbox import Outbox
from tests.support.http1_client import on_both_loops

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Server:
    """Answers with what became of the request body."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self._manager = web.Server(self._handle)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        self.reading.set()
        try:
            return web.Response(body=b"whole: " + await request.content.read())
        except web.RequestPayloadError as error:
            return web.Response(status=400, text=f"broken: {error}")

    def _connection(self) -> Connection:
        return Connection(self._manager, loop=asyncio.get_running_loop(), access_log=None)

    async def start(self) -> None:
        self._listener = await asyncio.get_running_loop().create_server(self._connection, "127.0.0.1", 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._listener.close()
        await self._manager.shutdown(0.1)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.start()
    yield made
    await made.stop()


async def exchange(server: Server, *pieces: bytes) -> bytes:
    """All that comes back; each piece after the first is sent once the body is being read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(5):
        for number, piece in enumerate(pieces):
            if number:
                await server.reading.wait()
            writer.write(piece)
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nhellooo\r\n0\r\n\r\n", b"\x00"])
async def test_a_body_that_turns_out_broken_ends_its_reading(
    server: Server, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await exchange(server, CHUNKED + b"2\r\nab\r\n", rest)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"broken: " in answer
    assert answer.count(b"HTTP/1.") == 1
    assert not caplog.records


async def test_whole_bodies_and_further_requests_are_left_alone(server: Server) -> None:
    last = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\nc"
    answer = await exchange(server, CHUNKED + b"1\r\na\r\n", b"0\r\n\r\n" + HEAD + b"Content-Length: 1\r\n\r\nb" + last)
    assert [part[:1] for part in answer.split(b"whole: ")[1:]] == [b"a", b"b", b"c"]


async def test_garbage_after_a_whole_body_spoils_no_answer(server: Server) -> None:
    answer = await exchange(server, CHUNKED + b"1\r\na\r\n", b"0\r\n\r\ngarbage garbage\r\n\r\n")
    assert b"whole: a" in answer


def test_the_aiohttp_that_is_here_is_one_whose_inside_is_known() -> None:
    assert http_server.IS_KNOWN


async def test_another_aiohttp_serves_in_its_own_way(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IS_KNOWN", False)
    last = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\nb"
    answer = await exchange(server, HEAD + b"Content-Length: 1\r\n\r\na" + last)
    assert [part[:1] for part in answer.split(b"whole: ")[1:]] == [b"a", b"b"]


class Watched(Connection):
    """One that can be referred to weakly."""


class Quick:
    """Answers at once by an outbox, and counts; with a path "/close" closes in the way of a server that stops."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.outbox.under_way = 100
        self.served = 0
        self.most = 0
        self.waiting_began = asyncio.Event()
        self._manager = web.Server(self._handle, handler_cancellation=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = Answer(request, outbox=self.outbox)
        if request.path == "/fails":
            raise RuntimeError("in a way that nobody expected")
        if request.path == "/waits":
            self.waiting_began.set()
            await asyncio.Event().wait()
        if request.path == "/breaks":
            answer.begin(200, b"", None, b"some")
            answer.abort()
            return answer.result
        if request.path == "/floods":
            answer.begin(200, b"", None)
            while self.most < 1 << 20:
                await answer.send(bytes(8 << 10))
                await asyncio.sleep(0)
                self.most = max(self.most, self.waiting(request))
        answer.whole(200, b"", b"ok")
        self.served += 1
        if request.path == "/close":
            request.protocol.close()
        return answer.result

    @staticmethod
    def waiting(request: web.BaseRequest) -> int:
        assert request.transport is not None
        return request.transport.get_write_buffer_size()

    def connection(self) -> "Watched":
        loop = asyncio.get_running_loop()
        return Watched(self._manager, outbox=self.outbox, loop=loop, access_log=None, lingering_time=0.05)

    async def stop(self) -> None:
        await self._manager.shutdown(0.1)


async def send_to_quick(quick: Quick, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    async with await loop.create_server(quick.connection, "127.0.0.1", 0) as listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(data)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        await quick.stop()
    return answer


async def test_an_answer_in_the_outbox_reaches_its_client_before_the_server_closes() -> None:
    answer = await send_to_quick(Quick(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /close HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"\r\n\r\nok") == 2


async def test_what_came_before_an_answer_broke_off_reaches_its_client() -> None:
    loop, quick = asyncio.get_running_loop(), Quick()
    async with await loop.create_server(quick.connection, "127.0.0.1", 0) as listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(b"GET /breaks HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"some")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await quick.stop()


async def test_a_client_that_takes_nothing_makes_the_answer_wait() -> None:
    loop, quick = asyncio.get_running_loop(), Quick()
    async with await loop.create_server(quick.connection, "127.0.0.1", 0) as listener:
        _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), limit=1 << 10)
        writer.write(b"GET /floods HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while quick.most > before or not quick.most:
            before = quick.most
            await asyncio.sleep(0.05)
        writer.transport.abort()
        await quick.stop()
    assert 0 < quick.most < 128 << 10


async def test_a_client_that_wants_no_more_gets_its_answer() -> None:
    answer = await send_to_quick(Quick(), b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nok")


async def test_who_sends_many_at_once_keeps_nobody_waiting() -> None:
    quick = Quick()
    turns: list[int] = []

    def look() -> None:
        turns.append(quick.served)
        if quick.served < 20:
            asyncio.get_running_loop().call_soon(look)

    look()
    many = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 19 + b"GET /close HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await send_to_quick(quick, many)).count(b"\r\n\r\nok") == 20
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 2


@pytest.mark.parametrize("waits", [False, True])
async def test_a_client_that_leaves_leaves_no_circles(waits: bool) -> None:
    loop, quick = asyncio.get_running_loop(), Quick()
    made: list[weakref.ref[Connection]] = []

    def connection() -> Connection:
        connection = quick.connection()
        made.append(weakref.ref(connection))
        return connection

    gc.collect()
    gc.disable()
    try:
        async with await loop.create_server(connection, "127.0.0.1", 0) as listener:
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"ok")
            if waits:
                writer.write(b"GET /waits HTTP/1.1\r\nHost: x\r\n\r\n")
                await quick.waiting_began.wait()
            writer.transport.abort()
            async with asyncio.timeout(5):
                while made[0]() is not None:
                    await asyncio.sleep(0.01)
            await quick.stop()
    finally:
        gc.enable()


async def test_a_body_that_nobody_reads_is_taken_for_a_while_only() -> None:
    answer = await send_to_quick(Quick(), HEAD + b"Content-Length: 100\r\n\r\nonly some")
    assert answer.endswith(b"\r\n\r\nok")


async def test_a_handler_that_fails_costs_its_own_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    answer = await send_to_quick(Quick(), b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Bad status line:\n  Invalid HTTP version:\n\n  b'GET / HTTP/9.9'\n   ^",
            "Bad status line: Invalid HTTP version",
        ),
        ("Invalid header value char:\n\n  b'Authorization: Bearer sesame'\n   ^", "Invalid header value char"),
        ("Got more than 8190 bytes when reading: b'sesame...'.", "Got more than 8190 bytes when reading"),
        ("Received HTTPS traffic on an HTTP port", "Received HTTPS traffic on an HTTP port"),
        ("Bad line: bytearray(b'sesame')", "Bad line"),
        ("Bad name 'absurd'", "Bad name 'absurd'"),
        (None, "malformed request"),
    ],
)
def test_a_fault_is_told_without_what_was_sent(message: str | None, said: str) -> None:
    assert fault(message) == said


async def test_a_peer_whose_machine_is_gone_is_noticed_within_a_minute() -> None:
    seen: asyncio.Queue[list[int]] = asyncio.Queue()

    async def answer(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        sock = request.transport.get_extra_info("socket")
        seen.put_nowait(
            [
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            ]
        )
        return web.Response()

    manager = web.Server(answer)
    loop = asyncio.get_running_loop()
    server, url = await http_server.listen(
        lambda: http_server.Connection(manager, loop=loop), "127.0.0.1:0", "a server", ""
    )
    async with server, aiohttp.ClientSession() as session, session.get(url) as got:
        assert got.status == 200
    assert await seen.get() == [1, 15]
    await manager.shutdown(1.0)


@on_both_loops
async def test_an_upload_comes_in_pieces(client: Client) -> None:
    pieces: list[list[int]] = []
    taking = False

    class Counting(Connection):
        def data_received(self, data: bytes) -> None:
            if taking:
                pieces[-1].append(len(data))
            super().data_received(data)

    async def answer(request: web.BaseRequest) -> web.Response:
        nonlocal taking
        protocol = request.protocol
        pieces.append([])
        with http_server.taking_upload(request.transport):
            size, taking = 0, True
            while piece := await request.content.read(1 << 16):
                size += len(piece)
            taking = False
        assert request.transport is not None
        assert request.transport.get_protocol() is protocol
        return web.Response(text=str(size))

    manager = web.Server(answer)
    loop = asyncio.get_running_loop()
    server, url = await http_server.listen(lambda: Counting(manager, loop=loop), "127.0.0.1:0", "a server", "")
    async with server:
        for _ in range(2):
            # The second over the same connection.
            async with await client.request(Origin.parse(url), "POST", "/", [], bytes(4 << 20)) as got:
                assert await got.read() == b"%d" % (4 << 20)
        assert client.idle_count(Origin.parse(url)) == 1
        await client.close()
        await manager.shutdown(1.0)
    assert len(pieces) == 2
    for sizes in pieces:
        assert sum(sizes) > 1 << 20  # the rest had come before
        assert max(sizes) <= 48 << 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only a reset is seen")
@pytest.mark.parametrize("reset", [False, True])
async def test_who_leaves_is_noticed_behind_what_is_not_read(reset: bool) -> None:
    began = asyncio.Event()
    left: asyncio.Queue[float] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        with http_server.taking_upload(writer.transport):
            began.set()
            while not writer.transport.is_closing():
                await asyncio.sleep(0.005)
        left.put_nowait(asyncio.get_running_loop().time())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x" * 10_000)
        await began.wait()
        await asyncio.sleep(0.12)  # it looks, and sees that the peer is there
        assert left.empty()
        at = asyncio.get_running_loop().time()
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        assert await left.get() - at < 0.2
