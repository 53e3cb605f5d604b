"""Control, node, gateway and a fake engine that stand while a whole file of tests runs, for clients that block."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from geniehive.rules.operations import Operation
from tests.support.daemons import Cluster
from tests.support.fake_process import FakeProcess

T = TypeVar("T")

# A model that can do everything, and one that only embeds.
MODEL, EMBEDDER = "all-1", "embed-1"


class Standing:
    """Runs on a loop in a thread of its own. Use `with`; `do` runs a coroutine there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster: Cluster
        self.engine = FakeProcess("openai", [MODEL], name="A")
        self.embedder = FakeProcess("openai", [EMBEDDER], name="E")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.do(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self.cluster = await Cluster(self.folder).__aenter__()
        await self.engine.start()
        await self.embedder.start()
        await self.cluster.start_control()
        everything = [operation.word for operation in Operation]
        entries = [
            {"name": "a", "url": self.engine.url, "models": [MODEL], "operations": everything},
            {"name": "e", "url": self.embedder.url, "models": [EMBEDDER], "operations": ["embeddings"]},
        ]
        await self.cluster.start_node("n1", {}, settings=entries)
        await self.cluster.start_gateway()
        await self.cluster.until_answers(MODEL)

    async def _stop(self) -> None:
        await self.cluster.__aexit__()
        await self.engine.kill()
        await self.embedder.kill()

    # What a test does, from its own thread.

    @property
    def url(self) -> str:
        return self.cluster.url

    @property
    def key(self) -> str:
        return self.cluster.client_key

    def script(self, **orders: Any) -> Any:
        return self.do(self.engine.script(**orders))

    def behave(self, **how: Any) -> None:
        self.script(behave=how)

    def asked(self, path: str) -> Any:
        """What came to the engine at this path since `fresh`."""
        return self.do(self.engine.requests(path))

    def fresh(self) -> None:
        """As at the start, for the next test."""
        self.script(behave=None)
        self.do(self.engine.forget())
