import asyncio
from collections.abc import AsyncIterator

import pytest

from geniehive.kit.http1 import Client, Origin
from geniehive_node.core.inventory import Seen
from geniehive_node.core.looks import Choice, Source
from geniehive_node.engines.ask import Target
from geniehive_node.engines.outside import Outside, matters
from geniehive_node.engines.watcher import Watcher
from tests.support.fake_engine import FakeEngine
from tests.unit.node.support import until

OPEN = Source(key="a", url="http://127.0.0.1:1", loopback=True)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client() as made:
        yield made


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (OPEN, True),
        (Source(key="a", url="http://127.0.0.1:1", loopback=True, way=Choice.DIRECT), True),
        (Source(key="a", url="http://127.0.0.1:1", loopback=True, way=Choice.RELAY), False),
        (Source(key="a", url="http://127.0.0.1:1", loopback=True, has_key=True), False),
        (Source(key="a", url="http://127.0.0.1:1", loopback=True, base_path="/api"), False),
        (Source(key="a", url="http://127.0.0.1:1", loopback=True, configured=True, demo=True), False),
        (Source(key="a", url="http://192.0.2.1:1"), False),
    ],
)
def test_whom_others_might_ask(source: Source, expected: bool) -> None:
    assert matters(source) is expected


async def look(client: Client, inside: FakeEngine, outside: str) -> list[str | None]:
    """What is told of an engine on loopback, where `outside` is what others would find."""
    origin = Origin.parse(inside.url)
    source = Source(key=inside.url, url=inside.url, loopback=True)
    told: list[Seen] = []
    watcher = Watcher(source, Target(origin, "/v1"), client, 0.05, lambda _: None)
    made = Outside(source, Target(Origin.parse(outside), "/v1"), watcher, client, told.append)
    tasks = [asyncio.create_task(watcher.run()), asyncio.create_task(made.run())]
    made.at("127.0.0.1")
    asked = Origin.parse(outside).port != origin.port
    try:
        if asked:
            await asyncio.sleep(0.3)
        else:
            await until(lambda: told)
            made.at(None)
            await until(lambda: len(told) == 2)
    finally:
        for task in tasks:
            task.cancel()
    return [seen.url for seen in told]


async def test_the_engine_itself_answers_there_until_that_address_is_gone(client: Client) -> None:
    async with FakeEngine("ollama", ["a"]) as engine:
        assert await look(client, engine, engine.url) == [engine.url, None]


@pytest.mark.parametrize(("runtime", "models"), [("openai", ["a"]), ("ollama", ["b"]), ("ollama", ["a", "b"])])
async def test_another_engine_there_is_not_taken_for_it(client: Client, runtime: str, models: list[str]) -> None:
    async with FakeEngine("ollama", ["a"]) as engine, FakeEngine(runtime, models) as other:
        assert await look(client, engine, other.url) == []


async def test_nobody_there(client: Client) -> None:
    async with FakeEngine("ollama", ["a"]) as engine:
        assert await look(client, engine, "http://127.0.0.1:1") == []
