"""The anthropic SDK makes the right thing of what the gateway answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest

from geniehive.rules.model import Scope
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import OFFLINE, endpoint, key, route, served, upstream
from tests.unit.gateway.http.engines import Engine, everything
from tests.unit.gateway.http.gateways import SECRET, Gateway, stream_head, stream_piece

ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hello"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1}}'
)
BEGINNING = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
    b'"role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":0}}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hello"}}\n\n'
)
END = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":1}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


@asynccontextmanager
async def sdk(gateway: Gateway, **given: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    given = given or {"api_key": SECRET}
    async with anthropic.AsyncAnthropic(base_url=gateway.url, max_retries=0, **given) as client:
        yield client


async def test_a_message_and_its_tokens() -> None:
    async with (
        Engine(MESSAGE, extra=b"Content-Type: application/json\r\n") as engine,
        Gateway(*everything(engine.url)) as gateway,
    ):
        for given in ({"api_key": SECRET}, {"auth_token": SECRET}):
            async with sdk(gateway, **given) as client:
                message = await client.messages.create(**ASK)
                assert (message.content[0].text, message.usage.input_tokens) == ("hello", 3)
    (head, _) = engine.heads
    assert b"\r\nanthropic-version: " in head.lower()
    assert SECRET.encode() not in b"".join(engine.heads)
    async with (
        Engine(b'{"input_tokens":42}', extra=b"Content-Type: application/json\r\n") as engine,
        Gateway(*everything(engine.url)) as gateway,
        sdk(gateway) as client,
    ):
        counted = await client.messages.count_tokens(model="m", messages=ASK["messages"])
        assert counted.input_tokens == 42
        await client.beta.messages.count_tokens(
            model="m", messages=ASK["messages"], betas=["b-1"], extra_query={"beta": "true"}
        )
    assert engine.heads[0].startswith(b"POST /v1/messages/count_tokens HTTP/1.1\r\n")
    assert engine.heads[1].startswith(b"POST /v1/messages/count_tokens?beta=true HTTP/1.1\r\n")
    assert b"anthropic-beta: b-1," in engine.heads[1].lower()


async def test_a_stream() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        for piece in (BEGINNING[:100], BEGINNING[100:], END, b""):
            await stream_piece(peer, piece)

    async with (
        RawServer(script) as engine,
        Gateway(*everything(str(engine.origin))) as gateway,
        sdk(gateway) as client,
        client.messages.stream(**ASK) as stream,
    ):
        assert [text async for text in stream.text_stream] == ["hello"]
        assert (await stream.get_final_message()).stop_reason == "end_turn"


@pytest.mark.parametrize("said", [b"", b"event: content_block_delta\n", b": a comment\n"])
async def test_a_stream_that_breaks_raises(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, BEGINNING + said)
        peer.close()

    async with RawServer(script) as engine, Gateway(*everything(str(engine.origin))) as gateway, sdk(gateway) as client:
        stream = await client.messages.create(**ASK, stream=True)
        with pytest.raises(anthropic.APIStatusError, match="broke off") as broken:
            async for _ in stream:
                pass
    assert broken.value.type == "api_error"


async def test_an_engines_own_error_in_a_stream() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"full"}}\n\n'
        await stream_piece(peer, BEGINNING + error)
        await stream_piece(peer, b"")

    async with RawServer(script) as engine, Gateway(*everything(str(engine.origin))) as gateway, sdk(gateway) as client:
        stream = await client.messages.create(**ASK, stream=True)
        with pytest.raises(anthropic.APIStatusError, match="full") as told:
            async for _ in stream:
                pass
    assert told.value.type == "overloaded_error"


@pytest.mark.parametrize(
    "body", [b'{"error":{"message":"because","code":1}}', b'{"error":"because"}', b'{"detail":"because"}', b"because",
             b'{"type":"error","error":{"type":"x_error","message":"because"}}', b'{"detail":{"error":"because"}}'],
)  # fmt: skip
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (b"400 Bad Request", anthropic.BadRequestError),
        (b"401 Unauthorized", anthropic.AuthenticationError),
        (b"403 Forbidden", anthropic.PermissionDeniedError),
        (b"404 Not Found", anthropic.NotFoundError),
        (b"413 Too Large", anthropic.APIStatusError),
        (b"422 Unprocessable", anthropic.UnprocessableEntityError),
        (b"429 Too Many", anthropic.RateLimitError),
        (b"500 Oops", anthropic.InternalServerError),
        (b"529 Overloaded", anthropic.InternalServerError),
    ],
)
async def test_errors_of_engines_in_all_their_shapes(
    body: bytes, status: bytes, error: type[anthropic.APIStatusError]
) -> None:
    async with Engine(body, status) as engine, Gateway(*everything(engine.url)) as gateway, sdk(gateway) as client:
        with pytest.raises(error) as raised:
            await client.messages.create(**ASK)
    assert raised.value.status_code == int(status[:3])
    assert raised.value.api_message == "because"
    assert raised.value.type
    assert raised.value.body["type"] == "error"  # type: ignore[index,call-overload]


async def test_our_own_errors() -> None:
    async with Gateway(
        *everything("http://x:1", routable=False, condition=OFFLINE),
        *served("chatty", b="http://x:1"),
        key("sk-read", Scope.READ, key_id="k2"),
    ) as gateway:
        async with sdk(gateway) as client:
            with pytest.raises(anthropic.NotFoundError, match="does not exist") as missing:
                await client.messages.create(**ASK | {"model": "nobody"})
            assert missing.value.type == "not_found_error"
            assert missing.value.request_id
            with pytest.raises(anthropic.BadRequestError, match="it serves chat"):
                await client.messages.count_tokens(model="chatty", messages=ASK["messages"])
            with pytest.raises(anthropic.InternalServerError, match="offline") as away:
                await client.messages.create(**ASK)
            assert away.value.status_code == 503
            assert away.value.response.headers["retry-after"] == "5"
        async with sdk(gateway, api_key="sk-wrong") as client:
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(**ASK)
        async with sdk(gateway, api_key="sk-read") as client:
            with pytest.raises(anthropic.PermissionDeniedError, match="k2"):
                await client.messages.create(**ASK)


async def test_the_models_can_be_listed_by_either_sdk() -> None:
    async with Gateway(route("m", "a/e/m"), endpoint("a/e", "m"), upstream("a/e")) as gateway, sdk(gateway) as client:
        assert [model.id async for model in client.models.list()] == ["m"]
