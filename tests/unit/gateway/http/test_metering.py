"""What is recorded of each request, and that counting tokens leaves no trace in what clients and engines see."""

import asyncio
import json
from itertools import pairwise

import pytest

from gateway.core.outcome import Ending, Failed, Outcome, Tokens
from geniehive.rules.operations import Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import endpoint, route, served, upstream
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, Gateway, stream_head, stream_piece
from tests.unit.gateway.http.test_calls import DEAD, Engine

STREAM = b'{"model":"m","stream":true,"messages":[]}'
ASKING = b'{"stream_options":{"include_usage":true},"model":"m","stream":true,"messages":[]}'
USAGE = b'{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}'
TOKENS = Tokens(10, 5, 2)
FIRST = 'data: {"choices":[{"index":0,"delta":{"content":"é模"},"finish_reason":null}]}\n\n'.encode()
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
FOR_USAGE = b'data: {"choices":[],"usage":' + USAGE + b"}\n\n"
DONE = b"data: [DONE]\n\n"
EVENTS = b"Content-Type: text/event-stream\r\n"
MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":8,'
    b'"cache_read_input_tokens":2,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":5}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":10,'
    b'"output_tokens":5,"input_tokens_details":{"cached_tokens":2}}}}\n\n'
)


def streaming(*pieces: bytes, bodies: list[bytes] | None = None, cut: bool = False) -> RawServer:
    """An engine that answers with these pieces of a stream, one write each."""

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            if bodies is not None:
                bodies.append(body)
            await stream_head(peer)
            for piece in pieces:
                await stream_piece(peer, piece)
                await asyncio.sleep(0)
            if cut:
                peer.reset()
                return
            await stream_piece(peer, b"")

    return RawServer(script)


async def one(gateway: Gateway) -> Outcome:
    (outcome,) = await gateway.ended()
    return outcome


async def test_a_whole_answer() -> None:
    async with (
        Engine(body=b'{"choices":[],"usage":' + USAGE + b"}") as engine,
        Gateway(*served("m", a=engine.url)) as gateway,
    ):
        await gateway.chat(x_request_id="r-1")
        outcome = await one(gateway)
        assert 0 < (outcome.first or 0) <= outcome.seconds < 5
        assert outcome == Outcome(
            request_id="r-1",
            key_id="k1",
            operation=Operation.CHAT,
            model="m",
            ending=Ending.OK,
            status=200,
            endpoint="endpoint/a/e/m",
            service="a/e",
            host="a",
            label="m",
            attempts=1,
            seconds=outcome.seconds,
            first=outcome.first,
            tokens=TOKENS,
        )


@pytest.mark.parametrize(
    ("path", "operation", "usage", "tokens"),
    [
        ("/v1/completions", Operation.COMPLETIONS, USAGE, TOKENS),
        ("/v1/embeddings", Operation.EMBEDDINGS, b'{"prompt_tokens": 20, "total_tokens": 20}', Tokens(20, 0)),
        ("/v1/rerank", Operation.RERANK, b'{"total_tokens":7}', Tokens(7, 0)),
        ("/v1/messages", Operation.MESSAGES, b'{"input_tokens":1,"output_tokens":2}', Tokens(1, 2)),
        ("/v1/responses", Operation.RESPONSES, b'{"input_tokens":3,"output_tokens":4}', Tokens(3, 4)),
        ("/v1/responses", Operation.RESPONSES, b"null", None),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_whole_answers_of_all_kinds(
    path: str, operation: Operation, usage: bytes, tokens: Tokens | None, chunked: bool
) -> None:
    answer = b'{"x":"' + b"y" * 100_000 + b'","usage":' + usage + b"}"

    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer, "application/json")
        for start in range(0, len(answer), 999):
            await stream_piece(peer, answer[start : start + 999])
        await stream_piece(peer, b"")

    table = route("m", "a/e/m", operations=(operation,)), endpoint("a/e", "m")
    async with (
        RawServer(script) if chunked else Engine(body=answer) as engine,
        Gateway(*table, upstream("a/e", str(engine.origin))) as gateway,
    ):
        assert (await gateway.ask("POST", path, BODY)).body == answer
        outcome = await one(gateway)
        assert (outcome.operation, outcome.ending, outcome.tokens) == (operation, Ending.OK, tokens)
        assert outcome.first is not None


@pytest.mark.parametrize(
    ("path", "operation", "stream"),
    [("/v1/messages", Operation.MESSAGES, MESSAGES), ("/v1/responses", Operation.RESPONSES, RESPONSES)],
)
@pytest.mark.parametrize("size", [40, 10_000])
async def test_streams_of_other_apis(path: str, operation: Operation, stream: bytes, size: int) -> None:
    bodies: list[bytes] = []
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    table = route("m", "a/e/m", operations=(operation,)), endpoint("a/e", "m")
    async with (
        streaming(*pieces, bodies=bodies) as engine,
        Gateway(*table, upstream("a/e", str(engine.origin))) as gateway,
    ):
        assert (await gateway.ask("POST", path, STREAM)).body == stream
        assert bodies == [STREAM]
        outcome = await one(gateway)
        assert (outcome.ending, outcome.tokens, outcome.stream) == (Ending.OK, TOKENS, True)


@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/completions"])
async def test_the_gateway_asks_for_usage_and_nobody_notices(path: str) -> None:
    bodies: list[bytes] = []
    pieces = FIRST, b": ping\n\n", LAST, FOR_USAGE, DONE
    async with streaming(*pieces, bodies=bodies) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        answer = await gateway.ask("POST", path, STREAM)
        assert answer.body == FIRST + b": ping\n\n" + LAST + DONE
        assert bodies == [ASKING]
        outcome = await one(gateway)
        assert (outcome.ending, outcome.tokens, outcome.stream) == (Ending.OK, TOKENS, True)


async def test_wherever_the_stream_is_split() -> None:
    stream = FIRST + LAST + FOR_USAGE + DONE
    stream = stream.replace(b"\n\n", b"\r\n\r\n")
    left = stream.replace(FOR_USAGE.replace(b"\n\n", b"\r\n\r\n"), b"")
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        while True:
            await peer.request()
            asked += 7
            await stream_head(peer)
            for start, end in pairwise(sorted({0, asked % len(stream), (asked + 9) % len(stream), len(stream)})):
                await stream_piece(peer, stream[start:end])
                await asyncio.sleep(0)
            await stream_piece(peer, b"")

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        for _ in range(len(stream) // 7):
            assert (await gateway.chat(STREAM)).body == left
        assert {outcome.tokens for outcome in await gateway.ended(len(stream) // 7)} == {TOKENS}


async def test_a_client_that_asks_itself_gets_what_it_asked_for() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    bodies: list[bytes] = []
    async with (
        streaming(FIRST, LAST, FOR_USAGE, DONE, bodies=bodies) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
    ):
        assert (await gateway.chat(body)).body == FIRST + LAST + FOR_USAGE + DONE
        assert bodies == [body]
        assert (await one(gateway)).tokens == TOKENS


async def test_engines_that_tell_unasked_are_not_asked() -> None:
    """If they were, what llama.cpp's clients look for would stand in the event that is taken out."""
    timings = b',"timings":{"cache_n":2,"prompt_n":8,"predicted_n":5,"predicted_ms":2.5}}'
    last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]' + timings + b"\n\n"
    bodies: list[bytes] = []
    async with (
        streaming(FIRST, last, DONE, bodies=bodies) as engine,
        Gateway(
            route("m", "a/e/m"), endpoint("a/e", "m"), upstream("a/e", str(engine.origin), runtime="llamacpp")
        ) as gateway,
    ):
        assert (await gateway.chat(STREAM)).body == FIRST + last + DONE
        assert bodies == [STREAM]
        assert (await one(gateway)).tokens == TOKENS


async def test_nothing_is_asked_where_that_is_not_wanted() -> None:
    bodies: list[bytes] = []
    async with (
        streaming(LAST, FOR_USAGE, DONE, bodies=bodies) as engine,
        Gateway(*served("m", a=str(engine.origin)), ask_usage=False) as gateway,
    ):
        assert (await gateway.chat(STREAM)).body == LAST + FOR_USAGE + DONE
        assert bodies == [STREAM]


@pytest.mark.parametrize("status", [b"400 Bad Request", b"422 Unprocessable Entity"])
async def test_an_engine_that_does_not_know_the_question(status: bytes) -> None:
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            bodies.append(body)
            if b"stream_options" in body:
                await peer.answer(b'{"detail":[{"loc":["body","stream_options"],"msg":"extra"}]}', status)
            else:
                await stream_head(peer)
                await stream_piece(peer, LAST + DONE)
                await stream_piece(peer, b"")

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        for _ in range(2):
            answer = await gateway.chat(STREAM)
            assert (answer.status, answer.body) == (200, LAST + DONE)
            assert answer.headers["x-geniehive-attempts"] == "1"
        assert bodies == [ASKING, STREAM, STREAM]
        first, _ = await gateway.ended(2)
        assert (first.ending, first.attempts, first.failed, first.tokens) == (Ending.OK, 1, (), None)


async def test_an_error_that_only_quotes_the_question() -> None:
    error = b'{"error":{"message":"no messages in {stream_options}"}}'
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            bodies.append((await peer.request())[1])
            await peer.answer(error, b"400 Bad Request", b"Content-Type: application/json\r\n")

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        for _ in range(2):
            answer = await gateway.chat(STREAM)
            assert (answer.status, answer.body) == (400, error)
        assert bodies == [ASKING, STREAM] * 2
        outcome = (await gateway.ended(2))[0]
        assert (outcome.ending, outcome.status) == (Ending.REFUSED, 400)
        assert outcome.failed == (Failed("endpoint/a/e/m", "refused"),)


async def test_a_whole_answer_to_who_wanted_a_stream() -> None:
    async with Engine(body=b'{"usage":' + USAGE + b"}") as engine, Gateway(*served("m", a=engine.url)) as gateway:
        assert (await gateway.chat(STREAM)).body == b'{"usage":' + USAGE + b"}"
        assert (await one(gateway)).tokens == TOKENS


async def test_a_stream_with_a_length() -> None:
    async with (
        Engine(body=FIRST + LAST + FOR_USAGE + DONE, extra=EVENTS) as engine,
        Gateway(*served("m", a=engine.url)) as gateway,
    ):
        assert (await gateway.chat(STREAM)).body == FIRST + LAST + DONE
        assert (await one(gateway)).tokens == TOKENS


async def test_each_event_goes_on_as_it_comes() -> None:
    """In the same write, not when the next one is there."""
    go = asyncio.Semaphore(0)
    pieces = [FIRST, FIRST[:15], FIRST[15:70], FIRST[70:], b": ping\n", b"\n", LAST + FOR_USAGE + DONE]
    seen = [FIRST, b"", FIRST[:70], FIRST[70:], b": ping\n", b"\n", LAST + DONE]

    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        for piece in pieces:
            await stream_piece(peer, piece)
            await go.acquire()
        await stream_piece(peer, b"")

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        response = await gateway.open("POST", CHAT_PATH, STREAM)
        for expected in seen:
            received = b""
            async with asyncio.timeout(2):
                while len(received) < len(expected):
                    received += await response.chunk()
            assert received == expected
            go.release()
        assert await response.read() == b""


CUT_STREAMS = [
    (CHAT_PATH, Operation.CHAT, FIRST, "data: "),
    (CHAT_PATH, Operation.CHAT, b"", "data: "),
    ("/v1/messages", Operation.MESSAGES, MESSAGES[: MESSAGES.index(b"event: message_stop")], "event: error\ndata: "),
    ("/v1/responses", Operation.RESPONSES, RESPONSES[: RESPONSES.index(b"event: response.completed")], "event: "),
]


@pytest.mark.parametrize(("path", "operation", "stream", "event"), CUT_STREAMS)
@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_stream_that_ends_too_early_ends_with_an_error(
    path: str, operation: Operation, stream: bytes, event: str, pieces: int
) -> None:
    parts = [stream] if pieces == 1 else [stream[:-20], stream[-20:]]
    table = route("m", "a/e/m", operations=(operation,)), endpoint("a/e", "m")
    async with (
        streaming(*filter(None, parts)) as engine,
        Gateway(*table, upstream("a/e", str(engine.origin))) as gateway,
    ):
        body = (await gateway.ask("POST", path, STREAM)).body
        assert body.startswith(stream + event.encode())
        assert b"nothing said that it was complete" in body
        assert body.endswith(b"\n\n")
        outcome = await one(gateway)
        assert (outcome.ending, outcome.status) == (Ending.FAILED, 200)
        assert outcome.failed == (Failed("endpoint/a/e/m", "cut"),)


@pytest.mark.parametrize("end", [LAST, DONE, LAST + FOR_USAGE, b"data: [DONE]", b"data: [DONE]\n"])
async def test_ends_that_engines_leave_out_are_no_cuts(end: bytes) -> None:
    async with streaming(FIRST, end) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        assert (await gateway.chat(STREAM)).body == FIRST + end.replace(FOR_USAGE, b"")
        assert (await one(gateway)).ending is Ending.OK


async def test_an_error_that_the_engine_tells_in_its_stream_is_no_success() -> None:
    error = b'data: {"error":{"message":"out of memory","code":500}}\n\n'
    async with streaming(FIRST, error) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        assert (await gateway.chat(STREAM)).body == FIRST + error
        outcome = await one(gateway)
        assert (outcome.ending, outcome.failed) == (Ending.FAILED, (Failed("endpoint/a/e/m", "cut"),))


async def test_a_stream_that_breaks_within_an_event() -> None:
    """Of the event that was held back nothing is told: half of it would be no event."""
    async with (
        streaming(FIRST, FOR_USAGE[:-30], cut=True) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
    ):
        body = (await gateway.chat(STREAM)).body
        assert body.startswith(FIRST + b"data: ")
        assert json.loads(body[len(FIRST) + 6 :])["error"]["code"] == "upstream_failed"
        assert (await one(gateway)).ending is Ending.FAILED


async def test_refusals_of_the_gateway() -> None:
    async with Gateway(*served("m", a=DEAD), upstream("b/e"), route("other", operations=())) as gateway:
        await gateway.chat(authorization="Bearer wrong")
        await gateway.chat(b"{")
        await gateway.chat(b'{"model":"nobody"}')
        await gateway.ask("POST", "/v1/embeddings", BODY)
        await gateway.chat(STREAM)
        await gateway.ask("GET", "/v1/models")
        await gateway.ask("GET", "/nothing")
        said = [(o.status, o.key_id, o.model, o.ending) for o in await gateway.ended(5)]
        assert said == [
            (401, "", "", Ending.UNSERVED),
            (400, "k1", "", Ending.UNSERVED),
            (404, "k1", "", Ending.UNSERVED),
            (400, "k1", "m", Ending.UNSERVED),
            (503, "k1", "m", Ending.FAILED),
        ]
        failed = gateway.outcomes[-1]
        assert (failed.attempts, failed.failed) == (1, (Failed("endpoint/a/e/m", "connect"),))
        assert (failed.endpoint, failed.host, failed.stream) == ("endpoint/a/e/m", "a", True)


async def test_a_retry_is_told_with_its_reason() -> None:
    async with (
        Engine(status=b"502 Bad Gateway") as bad,
        Engine() as good,
        Gateway(*served("m", a=bad.url, b=good.url)) as gateway,
    ):
        await gateway.chat()
        outcome = await one(gateway)
        assert (outcome.ending, outcome.attempts, outcome.endpoint) == (Ending.OK, 2, "endpoint/b/e/m")
        assert outcome.failed == (Failed("endpoint/a/e/m", "upstream"),)


@pytest.mark.parametrize("phase", ["waiting", "streaming", "uploading"])
async def test_clients_that_leave(phase: str) -> None:
    reached = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if phase == "streaming":
            await stream_head(peer)
            await stream_piece(peer, FIRST + FOR_USAGE)
        reached.set()
        await peer.gone()

    async with (
        RawServer(script) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
        gateway.connect() as (reader, writer),
    ):
        length = len(STREAM) + (phase == "uploading")
        head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: sk-test\r\nContent-Length: {length}\r\n\r\n"
        writer.write(head.encode() + STREAM)
        if phase == "uploading":
            await writer.drain()
            await asyncio.sleep(0.05)
        else:
            await reached.wait()
        if phase == "streaming":
            await reader.readuntil(FIRST)
        writer.close()
        outcome = await one(gateway)
        assert outcome.ending is Ending.CANCELLED
        assert outcome.status == (200 if phase == "streaming" else 0)
        assert outcome.tokens == (TOKENS if phase == "streaming" else None)
        assert outcome.model == ("" if phase == "uploading" else "m")
        assert outcome.failed == ()


async def test_a_gateway_that_stops_has_failed_the_request() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, FIRST)
        await peer.gone()

    async with RawServer(script) as engine, Gateway(*served("m", a=str(engine.origin))) as gateway:
        response = await gateway.open("POST", CHAT_PATH, STREAM)
        assert await response.chunk() == FIRST
        await gateway.server.drain(0.0)
        assert b"stopping" in await response.read()
        outcome = await one(gateway)
        assert (outcome.ending, outcome.failed) == (Ending.FAILED, ())
