import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from geniehive.kit.http1 import Client, Origin
from geniehive_node.core.inventory import Looked, Missed
from geniehive_node.core.looks import Source, Trouble
from geniehive_node.engines.ask import Target
from geniehive_node.engines.watcher import Watcher
from tests.support.fake_engine import FakeEngine
from tests.unit.node.support import Wire, until


class Watched:
    """What a watcher reported."""

    def __init__(self, url: str, **source: object) -> None:
        self.source = Source(key=url, url=url, configured=True, **source)  # type: ignore[arg-type]
        self.reports: list[Looked | Missed] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watcher]:
        async with Client() as client:
            target = Target(Origin.parse(self.source.url), "/v1")
            watcher = Watcher(self.source, target, client, 0.02, self.reports.append)
            task = asyncio.create_task(watcher.run())
            try:
                yield watcher
            finally:
                task.cancel()
                await asyncio.wait([task])

    @property
    def models(self) -> list[str] | None:
        last = self.reports[-1] if self.reports else None
        return [a.asset_id for a in last.snapshot.assets] if isinstance(last, Looked) else None

    @property
    def trouble(self) -> Trouble | None:
        last = self.reports[-1] if self.reports else None
        return last.trouble if isinstance(last, Missed) else None


async def test_a_new_model_is_seen_at_the_next_look() -> None:
    async with FakeEngine("ollama", ["a"]) as engine:
        watched = Watched(engine.url)
        async with watched.running() as watcher:
            await watcher.looked.wait()
            assert watched.models == ["a"]
            engine.add_model("b")
            await until(lambda: watched.models == ["a", "b"])


async def test_an_engine_goes_and_comes_back() -> None:
    engine = FakeEngine("openai", ["a"])
    await engine.start()
    watched = Watched(engine.url)
    async with watched.running():
        await until(lambda: watched.models == ["a"])
        await engine.stop()
        await until(lambda: watched.trouble is Trouble.UNREACHABLE)
        await engine.start()
        await until(lambda: watched.models == ["a"])
    await engine.stop()


async def test_another_engine_in_its_place_is_recognised_at_once() -> None:
    ollama = {
        "GET /": "Ollama is running",
        "GET /api/version": {"version": "0.33.0"},
        "GET /api/tags": {"models": []},
        "GET /v1/models": {"object": "list", "data": None},
    }
    async with Wire(dict(ollama)) as wire:
        watched = Watched(f"{wire.origin}")
        async with watched.running():
            await until(lambda: watched.models == [])
            listed = {"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]}
            wire.answers = {"GET /v1/models": listed}
            await until(lambda: watched.models == ["m"])
        runtimes = {r.snapshot.runtime for r in watched.reports if isinstance(r, Looked)}
        assert runtimes == {"ollama", "vllm"}
        assert not any(isinstance(r, Missed) for r in watched.reports)


async def test_changes_are_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine("openai", ["a"])
    await engine.start()
    watched = Watched(engine.url)
    with caplog.at_level(logging.INFO):
        async with watched.running():
            await until(lambda: len(watched.reports) > 5)
            await engine.stop()
            await until(lambda: watched.trouble is not None)
            seen = len(watched.reports)
            await until(lambda: len(watched.reports) > seen + 1)
    told = [r.message for r in caplog.records if r.name == "geniehive_node.engines.watcher"]
    assert len(told) == 2
    assert told[0] == f"{engine.url} is openai with a"
    assert "can't be reached" in told[1]


async def test_an_answer_nobody_foresaw_does_not_end_the_watching(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("id")

    monkeypatch.setattr("geniehive_node.engines.watcher.identify", broken)
    watched = Watched("http://127.0.0.1:9")
    async with watched.running():
        await until(lambda: watched.trouble is Trouble.STRANGE)
    assert "cannot read what http://127.0.0.1:9 answers" in caplog.text
