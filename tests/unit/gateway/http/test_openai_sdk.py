"""The openai SDK makes the right thing of what the gateway answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest

from geniehive.rules.model import Scope
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import OFFLINE, key, served, upstream
from tests.unit.gateway.http.engines import Engine, everything
from tests.unit.gateway.http.gateways import SECRET, Gateway, stream_head, stream_piece

CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
)
MESSAGES: list[dict[str, str]] = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def sdk(gateway: Gateway, api_key: str = SECRET) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=api_key, max_retries=0) as client:
        yield client


async def test_models_and_a_stream() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        for word in (b"one", b"two"):
            await stream_piece(peer, CHUNK % word)
        await stream_piece(peer, b"data: [DONE]\n\n")
        await stream_piece(peer, b"")

    async with (
        RawServer(script) as engine,
        Gateway(*served("org/m:1", a=str(engine.origin))) as gateway,
        sdk(gateway) as client,
    ):
        assert [m.id async for m in client.models.list()] == ["org/m:1"]
        assert (await client.models.retrieve("org/m:1")).owned_by == "geniehive"
        stream = await client.chat.completions.create(model="org/m:1", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        assert [c.choices[0].delta.content async for c in stream] == ["one", "two"]


async def test_a_stream_that_breaks_raises() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, CHUNK % b"one")
        peer.close()

    async with (
        RawServer(script) as engine,
        Gateway(*served("m", a=str(engine.origin))) as gateway,
        sdk(gateway) as client,
    ):
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        assert (await anext(stream)).choices[0].delta.content == "one"
        with pytest.raises(openai.APIError, match="broke off"):
            await anext(stream)


async def test_exceptions() -> None:
    async def refuses(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b'{"error":"context too long"}', b"400 Bad Request")

    async with (
        RawServer(refuses) as engine,
        Gateway(
            *served("m", a=str(engine.origin)),
            *served("away", b="http://x:1"),
            upstream("b/e", routable=False, condition=OFFLINE),
            key("sk-read", Scope.READ, key_id="k2"),
        ) as gateway,
    ):
        async with sdk(gateway) as client:
            with pytest.raises(openai.NotFoundError, match="Near matches: away") as missing:
                await client.chat.completions.create(model="awya", messages=MESSAGES)  # type: ignore[call-overload]
            assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
            assert missing.value.request_id
            with pytest.raises(openai.BadRequestError, match="context too long"):
                await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[call-overload]
            with pytest.raises(openai.InternalServerError, match="offline") as away:
                await client.chat.completions.create(model="away", messages=MESSAGES)  # type: ignore[call-overload]
            assert (away.value.status_code, away.value.code) == (503, "no_endpoint")
            assert away.value.response.headers["retry-after"] == "5"
        async with sdk(gateway, "sk-wrong") as client:
            with pytest.raises(openai.AuthenticationError) as wrong:
                await client.models.list()
            assert wrong.value.code == "invalid_api_key"
        async with sdk(gateway, "sk-read") as client:
            with pytest.raises(openai.PermissionDeniedError):
                await client.embeddings.create(model="m", input="x")


DELTA = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":1,"item_id":"i",'
    b'"output_index":0,"content_index":0,"delta":"one","logprobs":[]}\n\n'
)


async def test_responses_that_break_raise() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, DELTA)
        peer.close()

    async with RawServer(script) as engine, Gateway(*everything(str(engine.origin))) as gateway, sdk(gateway) as client:
        stream = await client.responses.create(model="m", input="x", stream=True)
        told = []
        with pytest.raises(openai.APIError, match="broke off"):
            while True:
                told.append(await anext(stream))
    assert [event.type for event in told] == ["response.output_text.delta", "response.failed"]
    assert told[1].type == "response.failed"
    assert told[1].response.error is not None
    assert "broke off" in told[1].response.error.message


async def test_an_engines_own_error_in_a_stream() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, CHUNK % b"one" + b'data: {"error":{"message":"boom","code":500}}\n\n')
        await stream_piece(peer, b"")

    async with RawServer(script) as engine, Gateway(*everything(str(engine.origin))) as gateway, sdk(gateway) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        assert (await anext(stream)).choices[0].delta.content == "one"
        with pytest.raises(openai.APIError, match="boom"):
            await anext(stream)


@pytest.mark.parametrize(
    "body", [b'{"error":{"message":"because","code":1}}', b'{"error":"because"}', b'{"detail":"because"}', b"because",
             b'{"type":"error","error":{"type":"x_error","message":"because"}}', b'{"detail":{"error":"because"}}'],
)  # fmt: skip
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (b"400 Bad Request", openai.BadRequestError),
        (b"401 Unauthorized", openai.AuthenticationError),
        (b"403 Forbidden", openai.PermissionDeniedError),
        (b"404 Not Found", openai.NotFoundError),
        (b"422 Unprocessable", openai.UnprocessableEntityError),
        (b"429 Too Many", openai.RateLimitError),
        (b"500 Oops", openai.InternalServerError),
    ],
)
async def test_errors_of_engines_in_all_their_shapes(
    body: bytes, status: bytes, error: type[openai.APIStatusError]
) -> None:
    async with Engine(body, status) as engine, Gateway(*everything(engine.url)) as gateway, sdk(gateway) as client:
        for ask in (
            client.chat.completions.create(model="m", messages=MESSAGES),  # type: ignore[call-overload]
            client.responses.create(model="m", input="x"),
            client.embeddings.create(model="m", input="x"),
            client.moderations.create(model="m", input="x"),
            client.images.generate(model="m", prompt="x"),
            client.audio.speech.create(model="m", input="x", voice="v"),
        ):
            with pytest.raises(error) as raised:
                await ask
            assert raised.value.body["message"] == "because"  # type: ignore[index,call-overload]


async def test_speech_is_bytes() -> None:
    sound = bytes(range(256)) * 5000
    async with (
        Engine(sound, extra=b"Content-Type: audio/wav\r\n") as engine,
        Gateway(*everything(engine.url)) as gateway,
        sdk(gateway) as client,
    ):
        got = await client.audio.speech.create(model="m", input="x", voice="v")
        assert got.response.headers["content-type"] == "audio/wav"
        assert await got.aread() == sound
