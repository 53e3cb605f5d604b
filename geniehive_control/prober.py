"""Connects to the addresses that nodes name, asks engines whether they are well, and tells the core of both."""

import asyncio

from geniehive.kit import tls_probe
from geniehive.kit.tasks import Tasks
from geniehive_control.core import events as e
from geniehive_control.core.probes import Check
from geniehive_control.core.reach import Place
from geniehive_control.hub import Hub
from geniehive_control.questions import Questions

# Connections under way at once.
_AT_ONCE = 50
_TIMEOUT = 2.0
# What is new is noticed this soon.
_PAUSE = 0.25


class Prober:
    def __init__(self, hub: Hub, questions: Questions) -> None:
        self._hub = hub
        self._questions = questions
        self._tasks = Tasks()
        self._under_way = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                now = self._hub.now().mono
                registry = self._hub.registry
                for where in registry.reach.take_due(now, _AT_ONCE - self._under_way):
                    self._under_way += 1
                    self._tasks.start(self._try(where), f"probe {where.host}:{where.port}")
                for check in registry.health.probes.take_due(now, _AT_ONCE - self._under_way):
                    self._under_way += 1
                    self._tasks.start(self._ask(check), f"probe {check.service}")
                await asyncio.sleep(_PAUSE)
        finally:
            await self._tasks.close()
            await self._questions.close()

    async def _try(self, where: Place) -> None:
        try:
            self._hub.feed(e.Probed(place=where, failure=await connect(where)))
        finally:
            self._under_way -= 1

    async def _ask(self, check: Check) -> None:
        try:
            known = self._hub.registry.health.probes.service(check.service)
            if known is not None:
                self._hub.feed(e.Checked(check=check, failure=await self._questions.ask(known[0], check.way, known[1])))
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
