"""Calls over real sockets, with scripted engines behind the gateway."""

import asyncio
import gc
import json

import pytest

from gateway.core.api import CALLS
from geniehive.kit.http1 import Timeouts, Truncated
from geniehive.rules.model import (
    Asset,
    Endpoint,
    NameKind,
    PromptAction,
    Relay,
    RequestPolicy,
    Resource,
    SystemPrompt,
    Way,
)
from geniehive.rules.operations import BY_PATH, Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import OFFLINE, endpoint, resource, route, served, table, until, upstream
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, Gateway, stream_head, stream_piece

DEAD = "http://127.0.0.1:1"
ANSWER = b'{"id":"x","choices":[]}'
END = b"\n\ndata: [DONE]\n\n"
JSON_TYPE = b"Content-Type: application/json\r\n"


class Engine(RawServer):
    """Records requests, and answers each as told."""

    def __init__(
        self, body: bytes = ANSWER, status: bytes = b"200 OK", extra: bytes = JSON_TYPE, times: int = 1 << 30
    ) -> None:
        super().__init__(self._script_of)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self._told = body, status, extra

    async def _script_of(self, peer: Peer) -> None:
        while True:
            head, body = await peer.request()
            self.heads.append(head)
            self.bodies.append(body)
            await peer.answer(*self._told)

    @property
    def url(self) -> str:
        return str(self.origin)


def message(body: bytes) -> str:
    return str(json.loads(body)["error"]["message"])


async def test_bodies_go_through_byte_for_byte_and_headers_say_who_served() -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url)) as gateway:
        body = b'{ "model":"m",  "n":4096, "x":"\xc3\xa9", "messages":[] }'
        answer = await gateway.chat(body)
        assert (answer.status, answer.body) == (200, ANSWER)
        assert engine.bodies == [body]
        said = {k: v for k, v in answer.headers.items() if k.startswith("x-geniehive")}
        assert said == {
            "x-geniehive-cluster": "c-1",
            "x-geniehive-service": "a/e",
            "x-geniehive-host": "a",
            "x-geniehive-model": "m",
            "x-geniehive-route": "m",
            "x-geniehive-attempts": "1",
        }


@pytest.mark.parametrize(
    ("path", "operation"),
    [(path, operation) for path, operation in BY_PATH.items() if not CALLS[path].multipart],
)
async def test_the_other_calls(path: str, operation: Operation) -> None:
    async with (
        Engine() as engine,
        Gateway(
            route("m", "a/e/m", operations=(operation,)), endpoint("a/e", "m"), upstream("a/e", engine.url)
        ) as gateway,
    ):
        assert (await gateway.ask("POST", path + "?api-version=1", BODY)).status == 200
        # Engines that rank have it below /v1, some of them there only.
        asked = "/v1/rerank" if path == "/rerank" else path
        assert engine.heads[0].startswith(f"POST {asked}?api-version=1 HTTP/1.1\r\n".encode())


async def test_only_the_models_name_is_replaced() -> None:
    async with (
        Engine() as engine,
        Gateway(
            route("org/fast:1", "a/e/m@real", kind=NameKind.ALIAS),
            endpoint("a/e", "m", "m@real"),
            upstream("a/e", engine.url),
        ) as gateway,
    ):
        await gateway.chat(b'{"n":4096,"model" : "org/fast:1","f":1.0}')
        assert engine.bodies == [b'{"n":4096,"model" : "m@real","f":1.0}']


async def test_what_is_the_clients_stays_here() -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url)) as gateway:
        await gateway.chat(
            x_api_key="sk-other",
            cookie="c=1",
            accept_encoding="gzip",
            origin="http://evil",
            openai_organization="org-1",
            x_geniehive_node_key="n",
            connection="keep-alive, x-hop",
            x_hop="1",
            x_stainless_lang="python",
            content_type="application/json",
            x_request_id="id-1",
        )
        head = engine.heads[0].lower()
        for gone in (
            b"sk-test",
            b"sk-other",
            b"cookie",
            b"encoding",
            b"origin",
            b"organization",
            b"node-key",
            b"x-hop",
        ):
            assert gone not in head
        for kept in (b"x-stainless-lang: python", b"content-type: application/json", b"x-request-id: id-1"):
            assert kept in head


async def test_what_is_the_engines_stays_there() -> None:
    extra = (
        b"Server: llama.cpp\r\nSet-Cookie: a=1\r\nAccess-Control-Allow-Origin:\r\nx-request-id: theirs\r\n"
        b"X-Geniehive-Host: forged\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nx-ratelimit-limit: 7\r\n"
    )
    async with Engine(extra=extra) as engine, Gateway(*served("m", a=engine.url)) as gateway:
        answer = await gateway.chat(x_request_id="ours")
        names = {name.lower() for name in answer.headers}
        assert not names & {"set-cookie", "access-control-allow-origin", "x-hop", "connection"}
        assert answer.headers["server"] == "GenieHive"
        assert answer.headers["x-request-id"] == "ours"
        assert answer.headers["x-geniehive-host"] == "a"
        assert answer.headers["x-ratelimit-limit"] == "7"


async def test_names_that_no_header_can_hold() -> None:
    async with Engine() as engine, Gateway(*served("模型", a=engine.url)) as gateway:
        answer = await gateway.chat('{"model":"模型"}'.encode())
        assert answer.headers["x-geniehive-model"] == "%E6%A8%A1%E5%9E%8B"


async def test_endpoints_in_turn() -> None:
    async with Engine() as one, Engine() as two, Gateway(*served("m", a=one.url, b=two.url)) as gateway:
        hosts = [(await gateway.chat()).headers["x-geniehive-host"] for _ in range(6)]
        assert hosts == ["a", "b"] * 3


async def test_a_dead_engine_costs_no_request() -> None:
    async with Engine() as engine, Gateway(*served("m", a=DEAD, b=engine.url)) as gateway:
        answers = [await gateway.chat() for _ in range(4)]
        assert [a.status for a in answers] == [200] * 4
        assert [a.headers["x-geniehive-attempts"] for a in answers] == ["2", "1", "1", "1"]
        assert gateway.balance.in_flight == {}


@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"503 Service Unavailable", b"504 Gateway Timeout"])
async def test_an_engine_that_says_not_now(status: bytes) -> None:
    async with (
        Engine(b'{"error":{"message":"Loading model","code":503}}', status) as bad,
        Engine() as good,
        Gateway(*served("m", a=bad.url, b=good.url)) as gateway,
    ):
        for _ in range(3):
            assert (await gateway.chat()).status == 200


async def test_the_only_engine_that_says_not_now_is_heard() -> None:
    body = b'{"error":{"message":"no slot available","type":"unavailable_error","code":503}}'
    async with Engine(body, b"503 Service Unavailable") as engine, Gateway(*served("m", a=engine.url)) as gateway:
        answer = await gateway.chat()
        assert (answer.status, answer.body) == (503, body)
        assert answer.headers["x-geniehive-service"] == "a/e"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (b"400 Bad Request", b'{"error":{"message":"too long","n_ctx":2048}}', None),
        (b"400 Bad Request", b'{"error":"model not found"}', "model not found"),
        (b"404 Not Found", b'{"detail":"Not Found"}', "Not Found"),
        (b"500 Internal Server Error", b"boom", "boom"),
    ],
)
async def test_engine_errors_pass_with_their_status(status: bytes, body: bytes, said: str | None) -> None:
    async with (
        Engine(body, status, b"Content-Type: text/plain\r\nRetry-After: 7\r\n") as engine,
        Engine() as other,
        Gateway(*served("m", a=engine.url, b=other.url)) as gateway,
    ):
        answer = await gateway.chat()
        assert answer.status == int(status[:3])
        assert answer.headers["Retry-After"] == "7"
        assert other.bodies == []
        if said is None:
            assert answer.body == body
        else:
            assert message(answer.body) == said
            assert answer.headers["content-type"] == "application/json"


async def test_nobody_reachable() -> None:
    async with Gateway(*served("m", a=DEAD, b="http://127.0.0.1:2")) as gateway:
        answer = await gateway.chat()
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "a/e/m: http://127.0.0.1:1 can't be reached" in message(answer.body)
        assert "b/e/m: http://127.0.0.1:2 can't be reached" in message(answer.body)


async def test_a_failure_that_goes_on_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with Gateway(*served("m", a=DEAD), upstream("a/e", routable=False, condition=OFFLINE)) as gateway:
        for _ in range(20):
            assert (await gateway.chat()).status == 503
    assert [r.levelname for r in caplog.records if r.levelname == "WARNING"] == ["WARNING"]


async def test_nobody_there() -> None:
    away = upstream("a/e", routable=False, condition=OFFLINE)
    async with Gateway(*served("m", a=DEAD), away) as gateway:
        answer = await gateway.chat()
        assert answer.status == 503
        assert "a/e/m: offline: the node's stream closed" in message(answer.body)


async def test_an_address_that_is_none() -> None:
    async with Gateway(*served("m", a="nonsense")) as gateway:
        answer = await gateway.chat()
        assert answer.status == 503
        assert "malformed" in message(answer.body)


async def test_an_unknown_model_is_looked_up_then_404() -> None:
    async with Engine() as engine, Gateway() as gateway:
        answer = await gateway.chat()
        assert answer.status == 404
        assert gateway.asked == [("m", "k1")]
        gateway.learned = table(*served("m", a=engine.url))
        assert (await gateway.chat()).status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"model":1}', b'{"model":"a","model":"b"}'])
async def test_bodies_that_can_not_be_used(body: bytes) -> None:
    async with Gateway() as gateway:
        answer = await gateway.chat(body)
        assert answer.status == 400
        assert message(answer.body)


def relayed(port: int, host: str = "far") -> tuple[Resource, ...]:
    relay = resource(Relay(host_id=host, base_urls=(f"http://127.0.0.1:{port}",), token="t0"))
    return route("m", f"{host}/e/m"), endpoint(f"{host}/e", "m"), upstream(f"{host}/e", ways=(Way(),)), relay


async def test_through_the_relay_with_its_token() -> None:
    async with Engine() as engine, Gateway(*relayed(engine.port)) as gateway:
        assert (await gateway.chat()).status == 200
        assert engine.heads[0].startswith(b"POST /far/e/v1/chat/completions HTTP/1.1\r\n")
        assert b"authorization: Bearer t0\r\n" in engine.heads[0]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("connect-failed", 503),
        ("unauthorized", 503),
        ("timeout", 504),
        ("upstream-broke", 502),
        ("stopping", 503),
        ("busy", 502),
    ],
)
async def test_errors_of_the_relay_itself_are_no_answers(word: str, status: int) -> None:
    extra = f"x-geniehive-relay-error: {word}\r\n".encode()
    async with (
        Engine(b'{"error":{"message":"why"}}', b"502 Bad Gateway", extra) as engine,
        Gateway(*relayed(engine.port)) as gateway,
    ):
        answer = await gateway.chat()
        assert answer.status == status
        assert "the relay of far says why" in message(answer.body)
        assert "x-geniehive-relay-error" not in answer.headers


async def test_from_the_direct_way_to_the_relay_of_the_same_engine() -> None:
    async with Engine() as engine:
        ways = (Way(direct_url=DEAD), Way())
        async with Gateway(*relayed(engine.port), upstream("far/e", ways=ways)) as gateway:
            answer = await gateway.chat()
            assert (answer.status, answer.headers["x-geniehive-attempts"]) == (200, "2")
            assert (await gateway.chat()).headers["x-geniehive-attempts"] == "1"


async def test_a_stream_whose_host_goes_offline_ends_soon_with_an_error_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream._LAST_SILENCE", 0.05)

    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, b"data: 1\n\n")
        await peer.gone()

    async with RawServer(script) as engine, Gateway(*relayed(engine.port)) as gateway:
        response = await gateway.open("POST", CHAT_PATH, BODY)
        assert await response.chunk() == b"data: 1\n\n"
        gone = upstream("far/e", ways=(Way(),), routable=False, condition=OFFLINE)
        gateway.upstream.offline(gateway.table.apply((gone,)))
        async with asyncio.timeout(2):
            event = await response.read()
        error = json.loads(event.removeprefix(b"data: "))["error"]
        assert error["code"] == "upstream_timeout"
        assert "after its host went offline" in error["message"]
        assert gateway.upstream._reading == {}
        assert gateway.upstreams.open_count == 0


async def test_pieces_of_a_stream_arrive_as_they_come() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await go.wait()
        for n in range(3):
            go.clear()
            await stream_piece(peer, b"data: %d\n\n" % n)
            await go.wait()
        await stream_piece(peer, b"data: [DONE]\n\n")
        await stream_piece(peer, b"")

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        response = await gateway.open("POST", CHAT_PATH, BODY)  # the head is there before the first token
        assert response.header(b"content-type") == b"text/event-stream"
        go.set()
        for n in range(3):
            assert await response.chunk() == b"data: %d\n\n" % n
            go.set()
        assert await response.read() == b"data: [DONE]\n\n"
        assert gateway.balance.in_flight == {}


@pytest.mark.parametrize(
    ("piece", "border"), [(b"data: 1\n\n", b""), (b'data: {"x', b"\n\n"), (b"data: 1\r\n\r\n", b"")]
)
async def test_a_stream_that_breaks_ends_with_an_error_event(piece: bytes, border: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, piece)
        peer.close()

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        response = await gateway.open("POST", CHAT_PATH, BODY)
        body = await response.read()
        start = piece + border + b"data: "
        assert body.startswith(start)
        assert body.endswith(b"\n\n")
        assert json.loads(body[len(start) :])["error"]["code"] == "upstream_failed"
        assert b"[DONE]" not in body


async def test_a_stream_that_falls_silent_ends_with_an_error_event() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, b"data: 1\n\n")
        await peer.gone()

    timeouts = Timeouts(idle=0.05)
    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin)), timeouts=timeouts) as gateway:
        body = (await gateway.chat()).body
        assert b'"code":"upstream_timeout"' in body


async def test_another_answer_that_breaks_after_the_first_byte_breaks_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer, "application/json")
        await stream_piece(peer, b'{"id"')
        peer.close()

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        response = await gateway.open("POST", CHAT_PATH, BODY)
        assert await response.chunk() == b'{"id"'
        with pytest.raises(Truncated):
            await response.chunk()


@pytest.mark.parametrize("cut", ["before the head", "in a whole answer", "before the first piece"])
async def test_what_breaks_before_the_first_byte_is_answered_by_another(cut: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if cut == "in a whole answer":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        elif cut == "before the first piece":
            await stream_head(peer, "application/json")
        peer.close()

    async with (
        RawServer(script) as bad,
        Engine() as good,
        Gateway(*served("m", a=str(bad.origin), b=good.url)) as gateway,
    ):
        answer = await gateway.chat()
        assert (answer.status, answer.body) == (200, ANSWER)
        assert answer.headers["x-geniehive-attempts"] == "2"


async def test_no_answer_in_time_is_504_if_nobody_else_is_there() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    timeouts = Timeouts(first_byte=0.05)
    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin)), timeouts=timeouts) as gateway:
        answer = await gateway.chat()
        assert answer.status == 504
        assert json.loads(answer.body)["error"]["code"] == "upstream_timeout"


async def test_garbage_from_an_engine_is_502() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"garbage\r\n\r\n")
        await peer.gone()

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        assert (await gateway.chat()).status == 502


@pytest.mark.parametrize("phase", ["waiting for the head", "in a whole answer", "in a stream"])
async def test_the_client_leaves_and_the_engine_is_stopped(phase: str) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if phase == "in a whole answer":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        elif phase == "in a stream":
            await stream_head(peer)
            await stream_piece(peer, b"data: 1\n\n")
        reached.set()
        await peer.gone()
        gone.set()

    async with (
        RawServer(script) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
        gateway.connect() as (reader, writer),
    ):
        head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: sk-test\r\nContent-Length: {len(BODY)}\r\n\r\n"
        writer.write(head.encode() + BODY)
        await reached.wait()
        if phase == "in a stream":
            await reader.readuntil(b"data: 1\n\n")
        writer.close()
        async with asyncio.timeout(5):
            await gone.wait()
        await until(lambda: not gateway.balance.in_flight and not gateway.handler.open)


async def test_a_slow_client_slows_the_engine_down() -> None:
    """Far more is on offer than any buffer holds: the engine must be left waiting, then all must arrive."""
    piece, count = b"x" * 65536, 1600  # 100 MB
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await stream_head(peer)
        for _ in range(count):
            await stream_piece(peer, piece)
            sent += 1
        await stream_piece(peer, END)
        await stream_piece(peer, b"")

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        response = await gateway.open("POST", CHAT_PATH, BODY)
        before = -1
        async with asyncio.timeout(20):
            while sent != before:  # until nothing moves
                before = sent
                await asyncio.sleep(0.2)
        assert sent < count / 2
        received = 0
        while data := await response.chunk():
            received += len(data)
        assert received == count * len(piece) + len(END)


async def test_a_client_that_takes_nothing_for_too_long_is_left() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        try:
            while True:
                await stream_piece(peer, b"x" * 65536)
        finally:
            gone.set()

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin)), client_idle=0.3) as gateway:
        response = await gateway.open("POST", CHAT_PATH, BODY)
        async with asyncio.timeout(20):
            await gone.wait()
        response.abort()


async def test_a_large_answer_with_a_length_is_passed_on_as_it_comes() -> None:
    large = b"y" * (3 << 20)
    async with Engine(large) as engine, Gateway(*served("m", a=engine.url)) as gateway:
        answer = await gateway.chat()
        assert answer.body == large
        assert answer.headers["content-length"] == str(len(large))


async def test_an_error_without_end_is_not_read_without_end() -> None:
    async with Engine(b"z" * (2 << 20), b"400 Bad Request") as engine, Gateway(*served("m", a=engine.url)) as gateway:
        answer = await gateway.chat()
        assert answer.status == 400
        assert len(answer.body) < 4096


async def test_no_content() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.gone()

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        answer = await gateway.chat()
        assert (answer.status, answer.body) == (204, b"")


async def test_a_policy_changes_what_the_engine_gets_and_the_name_still_does() -> None:
    prompt = SystemPrompt(action=PromptAction.PREPEND, text="Be brief.")
    policy = RequestPolicy(
        defaults_json='{"temperature":0.25}', overrides_json='{"max_tokens":7}', system_prompt=prompt
    )
    asset = Asset(asset_id="m", upstream_name="real", request_policies=(policy,))
    async with Engine() as engine:
        offered = resource(Endpoint(service="a/e", asset=asset))
        async with Gateway(route("m", "a/e/real"), offered, upstream("a/e", engine.url)) as gateway:
            said = {"model": "m", "max_tokens": 9000, "x": 4096, "messages": [{"role": "user", "content": "hi"}]}
            answer = await gateway.ask("POST", CHAT_PATH, json.dumps(said).encode())
            assert answer.status == 200
            assert json.loads(engine.bodies[0]) == {
                "model": "real",
                "max_tokens": 7,
                "x": 4096,
                "temperature": 0.25,
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            }
            wrong = await gateway.ask("POST", CHAT_PATH, b'{"model":"m","messages":"hi"}')
            assert (wrong.status, json.loads(wrong.body)["error"]["param"]) == (400, "messages")
            assert len(engine.bodies) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_leaves_no_circles_behind(streamed: bool) -> None:
    """All its memory is free at its end: collecting circles would cost a tenth of the processor."""
    scripted = Engine()
    if streamed:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 14\r\n\r\ndata: [DONE]\n\n"

        async def stream(peer: Peer) -> None:
            while True:
                await peer.request()
                peer.writer.write(head)

        scripted = RawServer(stream)  # type: ignore[assignment]
    async with scripted as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        body = b'{"model":"m","stream":true,"messages":[]}' if streamed else BODY
        await gateway.chat(body)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                assert (await gateway.chat(body)).status == 200
            assert gc.collect() < 20
        finally:
            gc.enable()
