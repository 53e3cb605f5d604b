"""Queries, circles, and errors in the words of whoever asks, over real sockets."""

import json

import pytest

from gateway.core.api import CALLS, Dialect
from geniehive.rules.hops import MOST_HOPS
from geniehive.rules.operations import Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import OFFLINE, endpoint, route, upstream
from tests.unit.gateway.http.engines import Engine, everything
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, Gateway, stream_head, stream_piece

MESSAGES = "/v1/messages"
PATHS = {Dialect.OPENAI: CHAT_PATH, Dialect.RESPONSES: "/v1/responses", Dialect.ANTHROPIC: MESSAGES}
JSON_CALLS = [path for path, call in CALLS.items() if not call.multipart]


@pytest.mark.parametrize("query", ["", "?beta=true", "?", "?a=%20&b[]=1&c=\u007e", "?" + "x" * 2047])
async def test_the_query_goes_on_as_it_is(query: str) -> None:
    async with Engine() as engine, Gateway(*everything(engine.url)) as gateway:
        assert (await gateway.ask("POST", MESSAGES + query, BODY)).status == 200
    assert engine.heads[0].startswith(f"POST {MESSAGES}{query} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("query", ["?" + "x" * 2048, "?a=\u00e4", "?\u007f"])
async def test_a_query_that_no_engine_should_see(query: str) -> None:
    async with Engine() as engine, Gateway(*everything(engine.url)) as gateway, gateway.connect() as (reader, writer):
        writer.write(
            f"POST {CHAT_PATH}{query} HTTP/1.1\r\nHost: x\r\nX-Api-Key: sk-test\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n".encode()
            + BODY
        )
        assert (await reader.readline()) == b"HTTP/1.1 400 Bad Request\r\n"
    assert engine.heads == []


async def test_a_query_in_a_target_in_absolute_form() -> None:
    async with Engine() as engine, Gateway(*everything(engine.url)) as gateway, gateway.connect() as (reader, writer):
        writer.write(
            f"POST http://gw{MESSAGES}?beta=true HTTP/1.1\r\nHost: gw\r\nX-Api-Key: sk-test\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n".encode()
            + BODY
        )
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    assert engine.heads[0].startswith(b"POST /v1/messages?beta=true HTTP/1.1\r\n")


async def test_each_gateway_counts_itself() -> None:
    async with Engine() as engine, Gateway(*everything(engine.url)) as gateway:
        assert (await gateway.chat()).status == 200
        for passed in ("0", "1", str(MOST_HOPS)):
            assert (await gateway.chat(x_geniehive_hops=passed)).status == 200
    counted = [head.partition(b"x-geniehive-hops: ")[2].partition(b"\r\n")[0] for head in engine.heads]
    assert counted == [b"1", b"1", b"2", b"%d" % (MOST_HOPS + 1)]


async def test_a_circle_is_left() -> None:
    # The gateway is its own engine.
    async with Gateway() as gateway:
        gateway.table.apply(everything(gateway.url))
        # Only a circle without keys can come about: they are not sent on.
        gateway.handler._auth = False
        answer = await gateway.chat()
    assert answer.status == 508
    error = json.loads(answer.body)["error"]
    assert (error["code"], error["type"]) == ("loop_detected", "server_error")


@pytest.mark.parametrize("passed", ["x", "", "-1", "1e3", "9" * 5000, "\u0661"])
async def test_a_count_that_is_none(passed: str) -> None:
    async with Engine() as engine, Gateway(*everything(engine.url)) as gateway, gateway.connect() as (reader, writer):
        writer.write(
            f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: sk-test\r\nX-GenieHive-Hops: {passed}\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n".encode()
            + BODY
        )
        assert (await reader.readline()) == b"HTTP/1.1 400 Bad Request\r\n"
    assert engine.heads == []


def said(dialect: Dialect, body: bytes) -> str:
    """The message of an error in the shape of this dialect, and of no other."""
    error = json.loads(body)
    if dialect is Dialect.ANTHROPIC:
        assert error.keys() == {"type", "error", "request_id"}
        assert error["type"] == "error"
        assert error["error"].keys() == {"type", "message"}
    else:
        assert error.keys() == {"error"}
        assert error["error"].keys() == {"message", "type", "param", "code"}
    return str(error["error"]["message"])


@pytest.mark.parametrize("dialect", Dialect)
async def test_every_refusal_is_in_the_words_of_the_path(dialect: Dialect) -> None:
    path = PATHS[dialect]
    async with Gateway(*everything("http://127.0.0.1:1"), max_body=50) as gateway:
        for status, answer in (
            (401, await gateway.ask("POST", path, BODY, authorization="")),
            (405, await gateway.ask("DELETE", path)),
            (400, await gateway.ask("POST", path, b"{")),
            (413, await gateway.ask("POST", path, b"x" * 51)),
            (404, await gateway.ask("POST", path, b'{"model":"n"}')),
            (503, await gateway.ask("POST", path, BODY)),
            (508, await gateway.ask("POST", path, BODY, x_geniehive_hops="9")),
        ):
            assert answer.status == status
            assert said(dialect, answer.body)
            named = answer.headers.get("request-id")
            assert named == (answer.headers["x-request-id"] if dialect is Dialect.ANTHROPIC else None)
    async with Gateway(cold=True) as gateway:
        assert "routing table" in said(dialect, (await gateway.ask("POST", path, BODY)).body)


async def test_what_anthropics_api_has_besides_is_refused_in_its_words() -> None:
    async with Gateway() as gateway:
        answer = await gateway.ask("POST", "/v1/messages/batches", b"{}")
    assert answer.status == 404
    assert said(Dialect.ANTHROPIC, answer.body)


@pytest.mark.parametrize("path", JSON_CALLS)
async def test_a_name_for_other_operations_says_for_which(path: str) -> None:
    operation = CALLS[path].operation
    others = tuple(o for o in Operation if o is not operation)
    async with Gateway(
        route("m", "a/e/m", operations=others), endpoint("a/e", "m"), upstream("a/e", condition=OFFLINE)
    ) as gateway:
        answer = await gateway.ask("POST", path, BODY)
    assert answer.status == 400
    message = said(CALLS[path].dialect, answer.body)
    assert f"can't be used for {operation.word}" in message
    for other in others:
        assert f"{other.word} (/v1/" in message


async def test_errors_of_engines_come_with_their_headers() -> None:
    headers = {
        "retry-after": "7",
        "x-ratelimit-remaining-requests": "0",
        "openai-processing-ms": "12",
        "anthropic-ratelimit-tokens-reset": "soon",
        "request-id": "e1",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    async with Engine(b'{"error":"slower"}', b"429 Slow", lines) as engine, Gateway(*everything(engine.url)) as gateway:
        for dialect, path in PATHS.items():
            answer = await gateway.ask("POST", path, BODY)
            assert answer.status == 429
            assert said(dialect, answer.body) == "slower"
            assert headers.items() <= answer.headers.items()


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        (CHAT_PATH, 'data: {"error":{'),
        ("/v1/completions", 'data: {"error":{'),
        ("/v1/responses", "event: response.failed\ndata: {"),
        (MESSAGES, 'event: error\ndata: {"type":"error","error":{'),
    ],
)
async def test_a_stream_that_breaks_off_ends_in_an_event(path: str, begins: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, b"event: x\ndata: {}\n\n")
        peer.close()

    async with RawServer(script) as engine, Gateway(*everything(str(engine.origin))) as gateway:
        answer = await gateway.ask("POST", path, BODY)
    first, _, rest = answer.body.decode().partition("\n\n")
    assert first == "event: x\ndata: {}"
    assert rest.startswith(begins)
    assert rest.endswith("}\n\n")
    assert "broke off" in rest
