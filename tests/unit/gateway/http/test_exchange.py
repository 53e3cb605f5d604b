"""Bodies in and answers out, at the edges of HTTP/1."""

import asyncio
import gzip

import pytest

from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import served
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, Gateway, stream_head, stream_piece

HEAD = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: sk-test\r\n".encode()


async def echo(peer: Peer) -> None:
    while True:
        _, body = await peer.request()
        await peer.answer(b"%d" % len(body))


async def until_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.read(-1)


async def test_a_body_too_large_is_refused_before_it_is_sent() -> None:
    async with Gateway(max_body=100) as gateway, gateway.connect() as (reader, writer):
        writer.write(HEAD + b"Content-Length: 101\r\nExpect: 100-continue\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_however_it_comes(chunked: bool) -> None:
    async with Gateway(max_body=100) as gateway, gateway.connect() as (reader, writer):
        framing = b"Transfer-Encoding: chunked\r\n\r\n65\r\n" if chunked else b"Content-Length: 101\r\n\r\n"
        writer.write(HEAD + framing + b"x" * 101)
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_expect_continue() -> None:
    async with (
        RawServer(echo) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
        gateway.connect() as (reader, writer),
    ):
        writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"


async def test_a_large_body_in_pieces() -> None:
    async with RawServer(echo) as engine, Gateway(*served("m", a=str(engine.origin)), max_body=8 << 20) as gateway:
        body = b'{"model":"m","x":"' + b"a" * (4 << 20) + b'"}'
        assert (await gateway.chat(body)).body == b"%d" % len(body)


async def test_a_compressed_body_is_decoded() -> None:
    async with RawServer(echo) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        answer = await gateway.chat(gzip.compress(BODY), content_encoding="gzip")
        assert answer.body == b"%d" % len(BODY)


async def test_a_client_that_stalls_in_its_body() -> None:
    async with Gateway(client_idle=0.05) as gateway, gateway.connect() as (reader, writer):
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")


async def test_a_malformed_chunked_body() -> None:
    async with Gateway() as gateway, gateway.connect() as (reader, writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, b"data: [DONE]\n\n")
        await stream_piece(peer, b"")

    async with (
        RawServer(script) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
        gateway.connect() as (reader, writer),
    ):
        writer.write(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        head, _, body = (await until_end(reader)).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert body == b"data: [DONE]\n\n"


async def test_connections_are_kept_unless_the_client_says_otherwise() -> None:
    async with Gateway() as gateway, gateway.connect() as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        everything = await until_end(reader)
        assert everything.count(b"HTTP/1.1 200 OK") == 3
        assert everything.count(b"connection: close") == 1
