"""Clients and engines that mean harm: refused or harmless, and nobody else notices."""

import asyncio
import gzip
import json
import re
import tracemalloc

import pytest

from gateway.core.outcome import Ending
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import served
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, SECRET, Gateway
from tests.unit.gateway.http.test_calls import ANSWER, Engine

HEAD = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n".encode()
INNER = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


async def ask_raw(gateway: Gateway, data: bytes) -> bytes:
    """Everything that comes back until the gateway closes, or is silent for a moment after an answer."""
    async with gateway.connect() as (reader, writer):
        writer.write(data)
        got = b""
        try:
            while True:
                async with asyncio.timeout(5.0 if not got else 0.3):
                    piece = await reader.read(65536)
                if not piece:
                    return got
                got += piece
        except TimeoutError:
            return got


@pytest.mark.parametrize(
    "ambiguous",
    [
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(BODY) + b"0\r\n\r\n" + INNER,
        b"Content-Length: 4\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + INNER,
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
        b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
        b"Content-Length: -1\r\n\r\n" + INNER,
        b"Transfer-Encoding: chunked\r\n\r\n5\n12345\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + INNER,
        b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"X\x00: a\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_is_not_read_at_all(ambiguous: bytes) -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url)) as gateway:
        got = await ask_raw(gateway, HEAD + ambiguous)
        assert got.startswith(b"HTTP/1.1 400 ")
        # No second answer: what stood behind was not taken for a request.
        assert len(re.findall(rb"HTTP/1\.1 \d{3} ", got)) == 1
        assert not engine.heads
        assert (await gateway.chat()).status == 200


async def test_a_gzip_bomb_is_refused_and_costs_little() -> None:
    bomb = gzip.compress(b'{"model":"m","x":"' + b"0" * (64 << 20) + b'"}')
    async with Engine() as engine, Gateway(*served("m", a=engine.url), max_body=1 << 20) as gateway:
        tracemalloc.start()
        try:
            answer = await gateway.ask("POST", CHAT_PATH, bomb, content_encoding="gzip")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status in (400, 413)
        assert most < 24 << 20
        assert not engine.heads
        assert (await gateway.chat()).status == 200


async def test_who_never_ends_a_head_is_cut_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.server._KEEP_ALIVE", 0.4)
    async with (
        Engine() as engine,
        Gateway(*served("m", a=engine.url)) as gateway,
        gateway.connect() as (reader, writer),
    ):
        writer.write(HEAD)

        async def drip() -> None:
            while True:
                await asyncio.sleep(0.05)
                writer.write(b"X: y\r\n")

        dripping = asyncio.create_task(drip())
        try:
            assert (await gateway.chat()).status == 200
            async with asyncio.timeout(5):
                assert await reader.read(-1) == b""
        except ConnectionError:
            pass
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/..%2f..%2fetc",
        "/%76%31/chat/completions",
        "/v1/chat/completions%00",
        "/v1/chat/completions/",
        "//evil.example/v1/chat/completions",
        "/v1/models/../../etc/passwd",
    ],
)
async def test_no_other_spelling_of_a_path_leads_to_an_engine(path: str) -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url)) as gateway:
        line = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        )
        got = await ask_raw(gateway, line.encode() + BODY)
        assert got.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 ", b"HTTP/1.1 400 "))
        assert not engine.heads


@pytest.mark.parametrize(
    "model", ["m\r\nX-Evil: 1", "../../admin", "http://evil.example/", "m?x=1#y", "\u0000", "m\u2028"]
)
async def test_a_models_name_is_a_name_and_nothing_else(model: str) -> None:
    async with Engine() as engine, Gateway(*served(model, a=engine.url)) as gateway:
        answer = await gateway.ask("POST", CHAT_PATH, json.dumps({"model": model}).encode())
        if answer.status == 200:
            assert engine.heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert not any(b"x-evil:" in head.lower() for head in engine.heads)
        assert "x-evil" not in {name.lower() for name in answer.headers}


@pytest.mark.parametrize("body", [b'{"model":"m","x":' + b"[" * 200_000, b"[" * 200_000, b'{"a":' * 100_000])
async def test_depth_is_bounded(body: bytes) -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url)) as gateway:
        answer = await gateway.ask("POST", CHAT_PATH, body)
        assert answer.status == 400
        assert not engine.heads


@pytest.mark.parametrize(
    "line", [b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(2000)) + b"\r\n"],
)  # fmt: skip
async def test_heads_are_bounded(line: bytes) -> None:
    async with Gateway() as gateway:
        assert (await ask_raw(gateway, line)).startswith(b"HTTP/1.1 4")
        assert (await gateway.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
async def test_an_engines_redirect_is_not_followed_and_not_passed_on(status: bytes) -> None:
    async with Engine() as secret:
        where = f"Location: {secret.url}/v1/chat/completions\r\n".encode()
        async with Engine(b"", status, where) as engine, Gateway(*served("m", a=engine.url)) as gateway:
            answer = await gateway.chat()
            assert answer.status == 502
            assert "location" not in {name.lower() for name in answer.headers}
            assert secret.url not in answer.body.decode()
            assert not secret.heads


@pytest.mark.parametrize("length", [b"", b"Content-Length: 7\r\n"])
async def test_an_answer_without_a_body_is_no_redirect(length: bytes) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n%b\r\n" % length)

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        for _ in range(2):
            answer = await gateway.chat()
            assert (answer.status, answer.headers["ETag"], answer.body) == (304, "x", b"")
        assert engine.connections == 1
        assert [outcome.ending for outcome in await gateway.ended(2)] == [Ending.OK] * 2


async def test_a_switch_of_protocols_is_not_made() -> None:
    async def switch(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nfree bytes")
        await peer.writer.drain()
        await peer.reader.read(-1)

    async with RawServer(switch) as server, Gateway(*served("m", a=str(server.origin))) as gateway:
        answer = await gateway.ask("POST", CHAT_PATH, BODY, connection="Upgrade", upgrade="h2c")
        assert answer.status == 502


async def test_others_are_served_while_many_are_slow() -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url)) as gateway:
        slow = [await asyncio.open_connection("127.0.0.1", gateway.origin.port) for _ in range(200)]
        try:
            for _, writer in slow:
                writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
            answer = await gateway.chat()
            assert (answer.status, answer.body) == (200, ANSWER)
        finally:
            for _, writer in slow:
                writer.transport.abort()
