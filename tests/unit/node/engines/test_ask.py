import asyncio

import pytest

from geniehive.kit import address
from geniehive.kit.http1 import Origin
from geniehive_node.core.looks import LookFailed, Trouble
from geniehive_node.engines.ask import ANSWER_LIMIT, Target
from tests.unit.node.engines.conftest import Ask
from tests.unit.node.support import Wire


async def test_an_answer_of_any_status_is_an_answer(ask: Ask) -> None:
    async with Wire({"GET /a": (418, {"x": 1})}) as wire:
        answer = await ask(wire.origin, key="k").get("/a")
    assert (answer.status, answer.ok, answer.json(), answer.server) == (418, False, {"x": 1}, "uvicorn")
    assert wire.keys == ["Bearer k"]


async def test_polls_use_one_connection(ask: Ask) -> None:
    async with Wire({"GET /a": {}}) as wire:
        asker = ask(wire.origin)
        for _ in range(5):
            await asker.get("/a")
        assert wire.connections == 1


async def test_what_is_not_json_is_none(ask: Ask) -> None:
    async with Wire({"GET /text": '{"a": 1}', "GET /broken": "x"}) as wire:
        assert (await ask(wire.origin).get("/text")).json() is None
        assert (await ask(wire.origin).get("/broken")).json() is None


async def test_questions_beside_the_api_stand_where_it_stands(ask: Ask) -> None:
    async with Wire() as wire:
        asker = ask(wire.origin, base_path="/llm/v1")
        await asker.models()
        await asker.get("/props")
        await asker.post("/v1/embeddings", {})
    assert wire.asked == ["GET /llm/v1/models", "GET /llm/props", "POST /llm/v1/embeddings"]


async def test_nobody_there(ask: Ask) -> None:
    with pytest.raises(LookFailed) as error:
        await ask(Origin("http", "127.0.0.1", address.free_port())).get("/")
    assert error.value.trouble is Trouble.UNREACHABLE


async def test_too_late(ask: Ask) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    async with server:
        with pytest.raises(LookFailed) as error:
            await ask(Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])).get("/")
    assert error.value.trouble is Trouble.SLOW


async def test_not_http(ask: Ask) -> None:
    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(banner, "127.0.0.1", 0)
    async with server:
        with pytest.raises(LookFailed) as error:
            await ask(Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])).get("/")
    assert error.value.trouble is Trouble.STRANGE


async def test_endless(ask: Ask) -> None:
    async with Wire({"GET /a": "x" * (ANSWER_LIMIT + 1)}) as wire:
        with pytest.raises(LookFailed) as error:
            await ask(wire.origin).get("/a")
    assert error.value.trouble is Trouble.STRANGE


async def test_advice_for_a_missing_key_names_the_setting_and_never_the_key(ask: Ask) -> None:
    origin = Origin("http", "127.0.0.1", 8000)
    missing = ask(origin).refused("vllm")
    assert missing.runtime == "vllm"
    assert "engines: [{url: http://127.0.0.1:8000, key_file: FILE}]" in missing.message
    assert "sesame" not in ask(origin, key="sesame").refused().message
    assert "sesame" not in repr(Target(origin, "/v1", "sesame"))
