"""Requests and answers that go well."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geniehive.kit.http1 import Client, Measured, Origin, Response, Timeouts
from geniehive.kit.http1.connection import Connection
from geniehive.kit.outbox import Outbox
from tests.support.http1_client import on_both_loops
from tests.support.raw_server import Peer, RawServer


async def ask(client: Client, server: RawServer, method: str = "GET", body: bytes | None = None) -> Response:
    return await client.request(server.origin, method, "/", [], body)


@on_both_loops
async def test_what_is_sent(client: Client) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        for _ in range(4):
            seen.append(await peer.request())
            await peer.answer()

    async with RawServer(script) as server:
        for method, body in [("GET", None), ("POST", None), ("POST", b""), ("POST", b"x" * 100_000)]:
            async with await client.request(server.origin, method, "/p?q", [("A", "b")], body) as response:
                assert await response.read() == b"ok"
        host = b" /p?q HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nA: b\r\n" % server.port
    assert seen == [
        (b"GET" + host + b"\r\n", b""),
        (b"POST" + host + b"Content-Length: 0\r\n\r\n", b""),
        (b"POST" + host + b"Content-Length: 0\r\n\r\n", b""),
        (b"POST" + host + b"Content-Length: 100000\r\n\r\n", b"x" * 100_000),
    ]
    assert server.connections == 1


@on_both_loops
async def test_a_whole_answer_is_had_without_waiting(client: Client) -> None:
    rest = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await rest.wait()
        await peer.send(b"cd")
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with RawServer(script) as server:
        response = await ask(client, server)
        assert response.whole() is None
        rest.set()
        assert await response.read() == b"abcd"
        response = await ask(client, server)
        assert response.whole() == b"ok"
        assert client.idle_count(server.origin) == 1
        assert await response.read() == b""
        assert response.whole() is None
    assert server.connections == 1


async def test_requests_by_an_outbox() -> None:
    outbox = Outbox()
    outbox.under_way = 100

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.answer()

    async with RawServer(script) as server, Client(outbox=outbox) as client:
        for _ in range(2):
            for response in await asyncio.gather(*(ask(client, server, "POST", b"body") for _ in range(5))):
                assert await response.read() == b"ok"
    assert server.connections == 5


@on_both_loops
async def test_headers_as_received(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 418 T\r\nSet-Cookie: a\r\nset-cookie: b\r\nEmpty:\r\nX: y \r\nContent-Length: 0\r\n\r\n"
        )

    async with RawServer(script) as server, await ask(client, server) as response:
        assert response.status == 418
        assert response.headers == [
            (b"Set-Cookie", b"a"),
            (b"set-cookie", b"b"),
            (b"Empty", b""),
            (b"X", b"y"),
            (b"Content-Length", b"0"),
        ]
        assert response.header(b"SET-cookie") == b"a"
        assert response.header(b"nothing") is None


@on_both_loops
async def test_the_head_comes_before_the_body(client: Client) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        await go.wait()
        await peer.send(b"abc")
        go.clear()
        await go.wait()
        await peer.send(b"def")

    async with RawServer(script) as server, await ask(client, server) as response:
        go.set()
        assert await response.chunk() == b"abc"
        go.set()
        assert await response.chunk() == b"def"
        assert await response.chunk() == b""
        assert await response.chunk() == b""
        assert await response.read() == b""


@on_both_loops
async def test_many_reads_make_one_chunk(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\n"
        )
        await peer.answer(b"second")

    async with RawServer(script) as server, await ask(client, server) as response:
        assert await response.chunk() == b"abcd"
        assert await response.chunk() == b""
        assert response.header(b"T") is None


@pytest.mark.parametrize(
    "head",
    [
        b"200 OK\r\nContent-Length: 5",
        b"200 OK\r\nTransfer-Encoding: chunked",
        b"200 OK",
        b"404 No\r\nContent-Length: 0",
    ],
)
@on_both_loops
async def test_head_has_no_body(client: Client, head: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 " + head + b"\r\n\r\n")
        await peer.request()
        await peer.answer(b"next")

    async with RawServer(script) as server:
        async with await ask(client, server, "HEAD") as response:
            assert response.status == int(head[:3])
            assert await response.read() == b""
        if b":" in head:
            assert client.idle_count(server.origin) == 1
            async with await ask(client, server) as response:
                assert await response.read() == b"next"


@on_both_loops
async def test_a_body_after_all_to_a_head_is_not_taken_for_an_answer(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"HTTP/1.1 200 OK\r\n\r\n")
        await peer.gone()

    async with RawServer(script) as server, await ask(client, server, "HEAD") as response:
        assert await response.read() == b""
        assert client.idle_count(server.origin) == 0


@pytest.mark.parametrize("head", [b"204 No Content", b"304 Not Modified\r\nContent-Length: 7"])
@on_both_loops
async def test_statuses_without_body(client: Client, head: bytes) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.head()
            await peer.send(b"HTTP/1.1 " + head + b"\r\n\r\n")

    async with RawServer(script) as server:
        for _ in range(2):
            async with await ask(client, server) as response:
                assert await response.read() == b""
        assert server.connections == 1


@on_both_loops
async def test_interim_answers_are_skipped(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: z\r\n\r\nHTTP/1.1 ")
        await peer.send(b"200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with RawServer(script) as server, await ask(client, server) as response:
        assert (response.status, response.headers) == (200, [(b"Content-Length", b"2")])
        assert await response.read() == b"ok"


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK\r\nConnection: close", b"HTTP/1.1 200 OK"])
@on_both_loops
async def test_a_body_may_end_with_the_connection(client: Client, head: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(head + b"\r\n\r\nsome ")
        await peer.send(b"text")

    async with RawServer(script) as server:
        async with await ask(client, server) as response:
            assert await response.read() == b"some text"
        assert client.open_count == 0


@on_both_loops
async def test_a_streamed_body(client: Client) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.answer()
        await peer.gone()

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b""
        await asyncio.sleep(0)
        yield b"two" * 10_000

    async with RawServer(script) as server:
        async with await client.request(server.origin, "POST", "/", [], body()) as response:
            assert await response.read() == b"ok"
        assert client.idle_count(server.origin) == 1
    assert seen[0][1] == b"one " + b"two" * 10_000


@on_both_loops
async def test_a_streamed_body_of_known_length(client: Client) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.answer()
        await peer.gone()

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b""
        await asyncio.sleep(0)
        yield b"two" * 10_000

    async with RawServer(script) as server:
        for sent in (Measured(body(), 30_004), Measured(aiter_of(), 0)):
            async with await client.request(server.origin, "POST", "/", [], sent) as response:
                assert await response.read() == b"ok"
    assert [body for _, body in seen] == [b"one " + b"two" * 10_000, b""]
    assert all(b"chunked" not in head for head, _ in seen)
    assert [head.partition(b"Content-Length: ")[2][:5] for head, _ in seen] == [b"30004", b"0\r\n\r\n"]


@pytest.mark.parametrize("length", [3, 5])
@on_both_loops
async def test_a_streamed_body_must_have_the_length_that_was_announced(client: Client, length: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async with RawServer(script) as server:
        with pytest.raises(ValueError, match="announced"):
            await client.request(server.origin, "POST", "/", [], Measured(aiter_of(b"ab", b"cd"), length))
        assert client.open_count == 0


async def aiter_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@on_both_loops
async def test_large_bodies_both_ways(client: Client) -> None:
    sent = bytes(range(256)) * 40_000

    async def script(peer: Peer) -> None:
        _, body = await peer.request()
        await peer.answer(body)

    async with RawServer(script) as server, await ask(client, server, "POST", sent) as response:
        assert await response.read() == sent


@on_both_loops
async def test_ipv6(client: Client) -> None:
    async def script(peer: Peer) -> None:
        assert b"Host: [::1]:" in await peer.head()
        await peer.answer()

    async with RawServer(script, host="::1") as server, await ask(client, server) as response:
        assert await response.read() == b"ok"


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nA: b\r\nEmpty:\r\nContent-Length: 11\r\n\r\nhello world",
    "chunked": b"HTTP/1.1 200 OK\r\nA: b \r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n006\r\n world\r\n0\r\nTrailer: t\r\nEmpty:\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world",
}


NO_LIMITS = Timeouts(None, None, None, None)


class FakeTransport(asyncio.Transport):
    closed = False

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.parametrize("name", ANSWERS)
@example(cuts=set(range(1, 200)))
@settings(deadline=None)
@given(cuts=st.sets(st.integers(1, 200)))
def test_any_split_gives_the_same(name: str, cuts: set[int]) -> None:
    answer = ANSWERS[name]

    def feed(places: list[int]) -> tuple[object, ...]:
        loop = asyncio.new_event_loop()
        try:
            connection = Connection(Origin("http", "box", 1), loop, memoryview(bytearray(300)), lambda _: None)
            connection.connection_made(FakeTransport())
            connection.send(b"", None, False, NO_LIMITS, float("inf"))
            for start, end in zip([0, *places], [*places, len(answer)], strict=True):
                assert not connection.complete
                connection.get_buffer(-1)[: end - start] = answer[start:end]
                connection.buffer_updated(end - start)
            if name == "close":
                connection.eof_received()
            return connection.status, connection.headers, connection.take(), connection.complete, connection.keep
        finally:
            loop.close()

    whole = feed([])
    assert whole[2:] == (b"hello world", True, name != "close")
    assert feed(sorted(cut for cut in cuts if cut < len(answer))) == whole
