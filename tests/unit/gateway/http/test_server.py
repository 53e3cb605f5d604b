"""Listening, malformed HTTP, and draining."""

import asyncio
import json
import logging

import pytest

from gateway.http.server import HttpServer
from geniehive.kit.errors import UserError
from geniehive.kit.http1 import ConnectFailed
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import served, until
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, SECRET, Gateway, stream_head, stream_piece


async def test_a_port_in_use_is_said_so() -> None:
    async with Gateway() as gateway:
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{gateway.origin.port}: .*--set listen"):
            await HttpServer(gateway.handler).start(f"127.0.0.1:{gateway.origin.port}")


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"],
)  # fmt: skip
async def test_garbage_gets_a_clear_error(garbage: bytes) -> None:
    async with Gateway() as gateway, gateway.connect() as (reader, writer):
        writer.write(garbage)
        async with asyncio.timeout(5):
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"server: GenieHive\r\nx-geniehive-cluster: c-1\r\n" in head
        assert json.loads(body)["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    "line",
    [b"Authorization: Bearer sk-secret\x01", b"Authorization : Bearer sk-secret", b"X-Api-Key: sk-secret" * 2_100],
)
async def test_a_malformed_header_is_not_repeated(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Gateway() as gateway, gateway.connect() as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"secret" not in answer
    assert "not HTTP" in caplog.text
    assert "secret" not in caplog.text


async def test_a_body_that_turns_out_malformed_is_refused_at_once() -> None:
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with Gateway(client_idle=None) as gateway, gateway.connect() as (reader, writer):
        writer.write(head.encode() + b"2\r\n{}\r\n")
        async with asyncio.timeout(5):
            await until(lambda: gateway.handler.open)
            writer.write(b"nonsense\r\n")
            answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"malformed" in answer


async def test_who_connects_and_asks_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.server._KEEP_ALIVE", 0.05)
    async with Gateway() as gateway, gateway.connect() as (reader, writer):
        writer.write(b"GET /healthz HT")
        async with asyncio.timeout(5):
            assert await reader.read(-1) == b""


class Slow:
    """An engine that streams one event, and the rest when it is let."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, b"data: 1\n\n")
        waits = [asyncio.create_task(self.finish.wait()), asyncio.create_task(peer.gone())]
        _, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in left:
            wait.cancel()
        if self.finish.is_set():
            await stream_piece(peer, b"data: [DONE]\n\n")
            await stream_piece(peer, b"")
        else:
            self.gone.set()


async def test_draining_lets_open_streams_finish_and_takes_nothing_new() -> None:
    slow = Slow()
    async with (
        RawServer(slow) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
        gateway.connect() as (idle_reader, idle_writer),
    ):
        idle_writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle_reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        response = await gateway.open("POST", CHAT_PATH, BODY)
        assert await response.chunk() == b"data: 1\n\n"
        draining = asyncio.create_task(gateway.server.drain(10.0))
        async with asyncio.timeout(5):
            await idle_reader.read(-1)  # an idle connection is closed at once
        with pytest.raises(ConnectFailed):
            await gateway.ask("GET", "/healthz")
        assert not draining.done()
        slow.finish.set()
        assert await response.read() == b"data: [DONE]\n\n"
        async with asyncio.timeout(5):
            await draining


async def test_who_does_not_finish_in_time_is_told() -> None:
    slow = Slow()
    async with RawServer(slow) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        response = await gateway.open("POST", CHAT_PATH, BODY)
        assert await response.chunk() == b"data: 1\n\n"
        async with asyncio.timeout(5):
            await gateway.server.drain(0.05)
            assert b'"code":"stopping"' in await response.read()
            await slow.gone.wait()


async def test_while_draining_a_waiting_call_ends_with_the_deadline() -> None:
    gone = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        gone.set()

    async with RawServer(silent) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        asking = asyncio.create_task(gateway.chat())
        async with asyncio.timeout(5):
            await until(lambda: gateway.balance.in_flight)
            await gateway.server.drain(0.05)
            await gone.wait()
        with pytest.raises(Exception, match="closed the connection"):
            await asking


async def test_ready_no_more_while_draining() -> None:
    async with Gateway() as gateway:
        gateway.handler.draining = True
        answer = await gateway.ask("GET", "/readyz")
        assert answer.status == 503
        assert answer.headers["connection"] == "close"
