import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from geniehive.kit import http_server
from geniehive.kit.http_server import Connection, fault

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
        return Connection(self._manager, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]

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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only a reset is seen")
@pytest.mark.parametrize("reset", [False, True])
async def test_who_leaves_is_noticed_behind_what_is_not_read(reset: bool) -> None:
    began = asyncio.Event()
    left: asyncio.Queue[float] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        with http_server.noticing_leavers(writer.transport):
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
