import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import trustme

from geniehive.kit import address
from geniehive.kit.errors import UserError
from geniehive.kit.http1 import Client, Origin, Timeouts, Truncated
from geniehive_node import probing
from geniehive_node.engines.ask import Target
from geniehive_node.relay import ERROR_HEADER, RelayServer
from tests.support.fake_engine import FakeEngine
from tests.support.raw_server import Peer, RawServer
from tests.unit.node.support import until

CHAT = "/v1/chat/completions"
TOKEN = "ghr-token"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client() as made:
        yield made


@pytest.fixture
async def relay(client: Client) -> AsyncIterator[RelayServer]:
    made = RelayServer(client, 1.0, token=TOKEN)
    await made.start("127.0.0.1:0")
    yield made
    await made.stop(0.1)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def target(url: str, key: str | None = None, base_path: str = "/v1") -> Target:
    return Target(Origin.parse(url), base_path, key)


class Caller:
    """A gateway."""

    def __init__(self, relay: RelayServer, http: aiohttp.ClientSession) -> None:
        self.relay = relay
        self.http = http

    def ask(self, path: str = "/h/engine" + CHAT, token: str = TOKEN, method: str = "POST", **more: Any) -> Any:
        headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
        return self.http.request(method, self.relay.base_url + path, headers=headers, **more)

    async def refused(self, *args: Any, **more: Any) -> tuple[int, str]:
        async with self.ask(*args, **more) as answer:
            assert answer.headers["server"] == "GenieHive"
            body = await answer.json()
            assert body["error"]["code"] == answer.headers[ERROR_HEADER]
            assert body["error"]["message"]
            return answer.status, body["error"]["code"]


@pytest.fixture
def caller(relay: RelayServer, http: aiohttp.ClientSession) -> Caller:
    return Caller(relay, http)


async def test_adds_the_engines_key_and_passes_the_callers_on_nowhere(caller: Caller) -> None:
    async with FakeEngine("vllm", ["m"], key="engine-key") as engine:
        caller.relay.serve("h", {"engine": target(engine.url, "engine-key")})
        sent = {"x-api-key": "client", "cookie": "a=b", "x-geniehive-host": "x", "x-request-id": "r1"}
        async with caller.ask(json=HELLO, headers=sent) as answer:
            assert answer.status == 200
            assert (await answer.json())["choices"][0]["message"]["content"] == "engine X"
            assert ERROR_HEADER not in answer.headers
        (asked,) = [r for r in engine.requests if r.path == CHAT]
    assert asked.header("authorization") == "Bearer engine-key"
    assert asked.header("x-request-id") == "r1"
    assert asked.json() == HELLO
    for name in ("x-api-key", "cookie", "x-geniehive-host"):
        assert asked.header(name) is None


async def test_an_engine_with_a_path_of_its_own(caller: Caller) -> None:
    async with FakeEngine("openai", ["m"]) as engine:
        caller.relay.serve("h", {"engine": replace(target(engine.url), paths={"/v1/rerank": "/rerank"})})
        for path in ("/v1/rerank?x=1", "/v1/embeddings"):
            async with caller.ask(f"/h/engine{path}", json=HELLO) as answer:
                await answer.read()
        assert [asked.target for asked in engine.requests] == ["/rerank?x=1", "/v1/embeddings"]


async def test_a_gateway_behind_it_learns_how_many_came_before(caller: Caller) -> None:
    async with FakeEngine("openai", ["m"]) as engine:
        caller.relay.serve("h", {"engine": target(engine.url)})
        sent = {"X-GenieHive-Hops": "2", "X-GenieHive-Other": "x"}
        async with caller.ask("/h/engine/v1/messages?beta=true", json=HELLO, headers=sent) as answer:
            assert answer.status == 200
        (request,) = engine.requests
        assert request.header("x-geniehive-hops") == "2"
        assert request.header("x-geniehive-other") is None
        assert request.target == "/v1/messages?beta=true"


async def test_the_base_path_of_a_provider_takes_the_place_of_v1(caller: Caller) -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        head, _ = await peer.request()
        heads.append(head)
        await peer.answer(b"{}")

    async with RawServer(script) as server:
        origin = server.origin
        caller.relay.serve("h", {"groq": Target(origin, "/openai/v1", "k")})
        async with caller.ask(f"/h/groq{CHAT}?beta=true", json=HELLO) as answer:
            assert answer.status == 200
    assert heads[0].startswith(b"POST /openai/v1/chat/completions?beta=true HTTP/1.1\r\n")


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x"])
async def test_only_with_the_token(caller: Caller, token: str) -> None:
    caller.relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    assert await caller.refused(token=token, json=HELLO) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/h/other", "/x/engine", "/h//engine", "//h/engine", "/engine", "", "/h%2fengine"])
async def test_only_registered_services(caller: Caller, path: str) -> None:
    caller.relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    assert await caller.refused(path + CHAT, json=HELLO) == (404, "unknown-service")


def raw(path: str, method: str = "POST", more: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n{more}\r\n"
    return head.encode()


async def exchange(relay: RelayServer, data: bytes) -> bytes:
    """What comes back for these bytes, which no well-behaved client would send."""
    host, port = address.split(relay.base_url.removeprefix("http://"))
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head


@pytest.mark.parametrize(
    "path",
    [
        "/h/engine/v1/models",
        "/h/engine/v1/chat/completions/",
        "/h/engine/v1/../v1/chat/completions",
        "/h/engine//v1/chat/completions",
        "/h/engine/v1/chat%2fcompletions",
        "/h/engine/models/load",
        "/h/engine/",
    ],
)
async def test_only_the_paths_of_the_api_exactly_as_they_are(relay: RelayServer, path: str) -> None:
    relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    head = await exchange(relay, raw(path))
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"path-not-allowed" in head


async def test_only_post(relay: RelayServer) -> None:
    relay.serve("h", {"engine": target("http://127.0.0.1:1")})
    head = await exchange(relay, raw("/h/engine" + CHAT, "GET"))
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"allow: post" in head.lower()


async def test_nobody_listens(caller: Caller) -> None:
    caller.relay.serve("h", {"engine": target(f"http://127.0.0.1:{address.free_port()}")})
    assert await caller.refused(json=HELLO) == (502, "connect-failed")


async def test_errors_of_the_engine_pass_as_they_are(caller: Caller) -> None:
    async with FakeEngine("openai", ["m"]) as engine:
        caller.relay.serve("h", {"engine": target(engine.url)})
        engine.behave(status=429, body={"error": {"message": "slow down"}}, headers={"retry-after": "7"})
        async with caller.ask(json=HELLO) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "7")
            assert await answer.json() == {"error": {"message": "slow down"}}
            assert ERROR_HEADER not in answer.headers


async def test_a_stream_arrives_piece_by_piece(caller: Caller) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.send(b"b\r\ndata: one\n\n\r\n")
        await go.wait()
        await peer.send(b"b\r\ndata: two\n\n\r\n0\r\n\r\n")

    async with RawServer(script) as server:
        caller.relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        async with caller.ask(json={**HELLO, "stream": True}) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            assert await answer.content.readany() == b"data: one\n\n"
            assert caller.relay.in_flight() == {"engine": 1}
            go.set()
            assert await answer.content.read() == b"data: two\n\n"
        await until(lambda: not caller.relay.in_flight())


Sender = Callable[[Peer], Awaitable[None]]


async def cut_stream(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n")


async def cut_length(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")


@pytest.mark.parametrize("send", [cut_stream, cut_length])
async def test_a_cut_answer_cannot_pass_for_a_whole_one(relay: RelayServer, client: Client, send: Sender) -> None:
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await send(peer)
        await done.wait()
        peer.close()

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        response = await client.request(
            Origin.parse(relay.base_url), "POST", "/h/engine" + CHAT, [("authorization", f"Bearer {TOKEN}")], b"{}"
        )
        assert response.status == 200
        assert await response.chunk()
        done.set()
        with pytest.raises(Truncated):
            await response.read()


async def test_an_engine_that_dies_before_it_answers(caller: Caller) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.close()

    async with RawServer(script) as server:
        caller.relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        assert await caller.refused(json=HELLO) == (502, "upstream-broke")


@pytest.mark.parametrize("answered", [False, True])
async def test_when_the_caller_leaves_the_engine_is_let_go(relay: RelayServer, client: Client, answered: bool) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if answered:
            await cut_stream(peer)
        asked.set()
        await peer.gone()
        gone.set()

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        request = asyncio.create_task(
            client.request(
                Origin.parse(relay.base_url), "POST", "/h/engine" + CHAT, [("authorization", f"Bearer {TOKEN}")], b"{}"
            )
        )
        await asked.wait()
        if answered:
            (await request).abort()
        else:
            request.cancel()
        async with asyncio.timeout(5):
            await gone.wait()
        await until(lambda: not relay.in_flight())


async def test_a_slow_caller_holds_the_engine_back(relay: RelayServer, client: Client) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                await peer.send(b"x" * 65536)
                sent += 65536
        except ConnectionError:
            pass

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        response = await client.request(
            Origin.parse(relay.base_url), "POST", "/h/engine" + CHAT, [("authorization", f"Bearer {TOKEN}")], b"{}"
        )
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        # What the buffers of four sockets take, not the gigabyte.
        assert 0 < sent < 50_000_000
        response.abort()


async def test_a_large_request_is_streamed(caller: Caller) -> None:
    async with FakeEngine("openai", ["m"]) as engine:
        caller.relay.serve("h", {"engine": target(engine.url)})
        body = {**HELLO, "padding": "x" * 1_000_000}
        async with caller.ask(data=io.BytesIO(json.dumps(body).encode())) as answer:
            assert answer.status == 200
        (asked,) = engine.requests
    assert asked.json() == body
    # Not every engine takes chunks.
    assert asked.header("transfer-encoding") is None
    assert asked.header("content-length") == str(len(json.dumps(body)))


@pytest.mark.parametrize(("scheme", "size", "streams"), [("http", 600_000, True), ("http", 500_000, False),
                                                         ("https", 600_000, False)])  # fmt: skip
async def test_what_is_streamed_reaches_the_engine_before_its_end(
    http: aiohttp.ClientSession, scheme: str, size: int, streams: bool
) -> None:
    authority, begun, rest = trustme.CA(), asyncio.Event(), asyncio.Event()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("localhost").configure_cert(theirs)
    early: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        early.append(not rest.is_set())
        begun.set()
        await peer.reader.readexactly(size)
        await peer.answer()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 400_000
        if streams:
            await begun.wait()
        rest.set()
        yield b"x" * (size - 400_000)

    async with RawServer(script, tls=theirs if scheme == "https" else None) as engine, Client(ours) as client:
        relay = RelayServer(client, 1.0, token=TOKEN)
        await relay.start("127.0.0.1:0")
        relay.serve("h", {"engine": target(str(engine.origin))})
        length = {"content-length": str(size)}
        async with asyncio.timeout(5), Caller(relay, http).ask(data=body(), headers=length) as answer:
            assert answer.status == 200
        await relay.stop(1.0)
    assert early == [streams]


async def test_a_request_without_a_length_is_streamed_in_chunks(caller: Caller) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield json.dumps(HELLO).encode()

    async with FakeEngine("openai", ["m"]) as engine:
        caller.relay.serve("h", {"engine": target(engine.url)})
        async with caller.ask(data=pieces()) as answer:
            assert answer.status == 200
        (asked,) = engine.requests
    assert asked.json() == HELLO
    assert asked.header("transfer-encoding") == "chunked"


async def test_when_the_caller_leaves_in_the_middle_of_its_request_the_engine_is_let_go(relay: RelayServer) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        began.set()
        await peer.gone()
        gone.set()

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        host, port = address.split(relay.base_url.removeprefix("http://"))
        _, writer = await asyncio.open_connection(host, port)
        head = raw("/h/engine" + CHAT, more="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
        writer.write(head + b"5\r\nhello\r\n")
        await began.wait()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(5):
            await gone.wait()
        await until(lambda: not relay.in_flight())


async def test_a_broken_request_body_is_refused_at_once_and_the_engine_let_go(relay: RelayServer) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        began.set()
        await peer.gone()
        gone.set()

    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        host, port = address.split(relay.base_url.removeprefix("http://"))
        reader, writer = await asyncio.open_connection(host, port)
        head = raw("/h/engine" + CHAT, more="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
        writer.write(head + b"5\r\nhello\r\n")
        await began.wait()
        writer.write(b"no number\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()  # to the end: the connection is closed after it
            await gone.wait()
        await until(lambda: not relay.in_flight())
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-geniehive-relay-error: bad-request\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nno header\r\n\r\n", b"\x16\x03\x01 hello\r\n\r\n"]
)
async def test_what_is_not_http_gets_one_line_in_the_log(
    relay: RelayServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        head = await exchange(relay, data)
    assert b" 400 " in head.partition(b"\r\n")[0]
    assert b"server: GenieHive\r\n" in head
    assert b"x-geniehive-relay-error: bad-request\r\n" in head
    (line,) = [r for r in caplog.records if r.name.startswith(("geniehive", "aiohttp"))]
    assert line.exc_info is None
    assert "\n" not in line.getMessage()


@pytest.mark.parametrize("value", ["sesame\x01", "sesame" * 20_000])
async def test_no_key_in_what_is_not_http_is_repeated(
    relay: RelayServer, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        await exchange(relay, f"POST / HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {value}\r\n\r\n".encode())
    assert "refused what is not HTTP: " in caplog.text
    assert "sesame" not in caplog.text


async def test_what_a_gateway_takes_gets_through(caller: Caller) -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        head, _ = await peer.request()
        heads.append(head)
        await peer.answer(b"{}")

    async with RawServer(script) as server:
        caller.relay.serve("h", {"engine": Target(server.origin, "/v1", None)})
        async with caller.ask(json=HELLO, headers={"x-long": "x" * 32_000}) as answer:
            assert answer.status == 200
    assert b"x" * 32_000 in heads[0]


async def test_a_key_that_the_engine_refuses_is_no_fault_of_the_caller(caller: Caller) -> None:
    async with FakeEngine("openai", ["m"]) as engine:
        caller.relay.serve("h", {"engine": target(engine.url, "engine-key")})
        engine.behave(status=401, body={"error": {"message": "Incorrect API key provided: engine-key"}})
        async with caller.ask(json=HELLO) as answer:
            assert (answer.status, answer.headers[ERROR_HEADER]) == (502, "key-refused")
            assert "engine-key" not in await answer.text()


async def test_stopping_lets_open_requests_end_and_takes_no_more(client: Client, http: aiohttp.ClientSession) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.answer(b"{}")

    relay = RelayServer(client, 1.0, token=TOKEN)
    await relay.start("127.0.0.1:0")
    caller = Caller(relay, http)
    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})

        async def ask() -> int:
            async with caller.ask(json=HELLO) as answer:
                status: int = answer.status
                return status

        open_one = asyncio.create_task(ask())
        await until(lambda: relay.in_flight())
        stopping = asyncio.create_task(relay.stop(5.0))
        await asyncio.sleep(0)
        assert await caller.refused(json=HELLO) == (503, "stopping")
        go.set()
        assert await open_one == 200
        await stopping
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask()


async def test_stopping_does_not_wait_for_ever(
    client: Client, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        gone.set()

    relay = RelayServer(client, 1.0, token=TOKEN)
    await relay.start("127.0.0.1:0")
    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})

        async def ask() -> None:
            async with Caller(relay, http).ask(json=HELLO):
                pass

        request = asyncio.create_task(ask())
        await until(lambda: relay.in_flight())
        await relay.stop(0.05)
        async with asyncio.timeout(5):
            await gone.wait()
        with pytest.raises(aiohttp.ClientError):
            await request
    assert "1 relayed requests did not end in time" in caplog.text


async def test_a_port_in_use_is_said_with_its_setting(relay: RelayServer, client: Client) -> None:
    taken = relay.base_url.removeprefix("http://")
    with pytest.raises(UserError, match=r"cannot listen on .*relay\.listen"):
        await RelayServer(client, 1.0, token=TOKEN).start(taken)


async def test_too_many_requests_at_once_are_told_when_to_come_back(
    client: Client, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.answer(b"{}")

    relay = RelayServer(client, 1.0, token=TOKEN, requests=1)
    await relay.start("127.0.0.1:0")
    caller = Caller(relay, http)
    async with RawServer(script) as server:
        relay.serve("h", {"engine": Target(server.origin, "/v1", None)})

        async def ask() -> int:
            async with caller.ask(json=HELLO) as answer:
                status: int = answer.status
                return status

        open_one = asyncio.create_task(ask())
        await until(lambda: relay.in_flight())
        async with caller.ask(json=HELLO) as answer:
            assert (answer.status, answer.headers[ERROR_HEADER], answer.headers["retry-after"]) == (503, "busy", "1")
        go.set()
        assert await open_one == 200
        assert await ask() == 200
    await relay.stop(0.1)


async def test_the_limits_in_time_are_the_gateways(client: Client) -> None:
    assert RelayServer(client, 2.0, token=TOKEN)._timeouts == Timeouts(connect=2.0, first_byte=None, idle=None)


async def test_a_probe_asks_the_engine_by_its_cheapest_path_with_its_key(caller: Caller) -> None:
    async with FakeEngine("vllm", ["m"], key="engine-key") as engine:
        caller.relay.serve("h", {"engine": replace(target(engine.url, "engine-key"), runtime="vllm")})
        async with caller.ask("/h/engine/probe", method="GET") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        (asked,) = engine.requests
        assert (asked.method, asked.path, asked.header("authorization")) == ("GET", "/health", "Bearer engine-key")
        assert not caller.relay.in_flight()
        assert await caller.refused("/h/engine/probe", token="another", method="GET") == (401, "unauthorized")
        assert await caller.refused("/h/other/probe", method="GET") == (404, "unknown-service")
        assert await caller.refused("/h/engine/probe") == (404, "path-not-allowed")


async def test_a_probe_says_what_is_wrong(caller: Caller) -> None:
    async def unwell(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"", b"503 Service Unavailable")

    async with RawServer(unwell) as server:
        caller.relay.serve("h", {"engine": replace(target(f"http://127.0.0.1:{server.port}"), runtime="vllm")})
        assert await caller.refused("/h/engine/probe", method="GET") == (502, "unwell")
    caller.relay.serve("h", {"engine": target(f"http://127.0.0.1:{address.free_port()}")})
    assert await caller.refused("/h/engine/probe", method="GET") == (502, "connect-failed")


async def test_a_probe_of_a_silent_engine_ends_soon(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_PATIENCE", Timeouts(connect=1.0, first_byte=0.05, idle=1.0, total=1.0))
    released = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        await released.wait()

    async with RawServer(silent) as server:
        caller.relay.serve("h", {"engine": target(f"http://127.0.0.1:{server.port}")})
        assert await caller.refused("/h/engine/probe", method="GET") == (504, "timeout")
        released.set()
