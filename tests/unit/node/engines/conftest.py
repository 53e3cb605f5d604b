from collections.abc import AsyncIterator, Callable

import pytest

from geniehive.kit.http1 import Client, Origin, Timeouts
from geniehive_node.engines.ask import Asker, Target

QUICK = Timeouts(connect=0.5, first_byte=0.3, idle=0.3, total=1.0)

Ask = Callable[..., Asker]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """`ask(origin, key=..., base_path=...)` makes an asker with short limits."""
    async with Client() as client:

        def make(origin: Origin, key: str | None = None, base_path: str = "/v1") -> Asker:
            return Asker(client, Target(origin, base_path, key), QUICK)

        yield make
