"""Connects to the addresses that nodes name, and tells the core what became of it. Sends nothing."""

import asyncio

from geniehive.kit import tls_probe
from geniehive.kit.tasks import Tasks
from geniehive_control.core import events as e
from geniehive_control.core.reach import Place
from geniehive_control.hub import Hub

# Connections under way at once.
_AT_ONCE = 50
_TIMEOUT = 2.0
# New addresses are noticed this soon.
_PAUSE = 0.25


class Prober:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tasks = Tasks()
        self._under_way = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                now = self._hub.now().mono
                for where in self._hub.registry.reach.take_due(now, _AT_ONCE - self._under_way):
                    self._under_way += 1
                    self._tasks.start(self._try(where), f"probe {where.host}:{where.port}")
                await asyncio.sleep(_PAUSE)
        finally:
            await self._tasks.close()

    async def _try(self, where: Place) -> None:
        try:
            self._hub.feed(e.Probed(place=where, failure=await connect(where)))
        finally:
            self._under_way -= 1


async def connect(where: Place, timeout: float = _TIMEOUT) -> str | None:
    """Why no connection comes about, in words; None if one does."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(where.host, where.port)
    except (OSError, UnicodeError) as error:
        return tls_probe.words(error)
    # At once: nothing was said, and nothing is to be said.
    writer.transport.abort()
    return None
