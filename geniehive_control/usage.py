"""Takes gateways' reports, writes them behind in batches, and answers questions about what they add up to.

A report is acknowledged when it is in the database; until then its gateway keeps it. So a control that is killed loses
nothing that a gateway still has, and what it had written already does not count twice.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from geniehive.kit.clock import Clock
from geniehive_control.core import events as e
from geniehive_control.core.gauges import Gauges, Routes
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.usage import Book, Group, Key, Query, Who, hour_of, outcomes
from geniehive_control.hub import Hub
from geniehive_control.mailbox import Mailbox
from geniehive_control.ports import Store, StoreUnavailable

log = logging.getLogger(__name__)

# Seconds. Between two writes: the first report is written at once, of many the others together.
_WRITE_EVERY = 1.0
_TRY_AGAIN = 2.0
_PRUNE_EVERY = 3600.0
# For so long a process that is silent may come back with a report that was counted.
_REMEMBERED = 7 * 86400.0


class Usage:
    """interval: between a process's reports, in seconds. keep_days: hours older than that are dropped."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        clock: Clock,
        reported: Mapping[Who, int],
        *,
        interval: float = 5.0,
        keep_days: float = 400.0,
    ) -> None:
        self.interval = interval
        self._hub = hub
        self._store = store
        self._clock = clock
        self._keep = keep_days * 86400.0
        self._book = Book(reported)
        self._gauges = Gauges()
        # By stream: whose reports come there. The newest stream of a process hears what was stored.
        self._streams: dict[str, tuple[Who, Mailbox[int]]] = {}
        self._waiting = asyncio.Event()

    def start(self) -> None:
        self._hub.tasks.start(self._write_behind(), "usage writer")
        self._hub.tasks.start(self._prune(), "usage pruner")

    # Streams of reports.

    def open(self, stream_id: str) -> Mailbox[int]:
        """Gives the sequences that need not be kept any more. Refusal if control is stopping."""
        return self._hub.open_reports(stream_id)

    def close(self, stream_id: str) -> None:
        self._hub.close_reports(stream_id)
        self._streams.pop(stream_id, None)
        self._gauges.drop(stream_id)

    def take(
        self,
        stream_id: str,
        box: Mailbox[int],
        who: Who,
        sequence: int,
        rows: Sequence[tuple[Key, list[float]]],
    ) -> None:
        """A report. Refusal if more can't be held: the gateway keeps it and comes again."""
        if self._book.full:
            text = "control holds all the usage that it can, and its database takes no writes"
            raise Refusal(Why.CONTROL_UNAVAILABLE, text, retry_after=self.interval)
        self._streams[stream_id] = who, box
        # Before the book adds the rows up.
        told = tuple(outcomes(key.endpoint, key.model, who[1], numbers) for key, numbers in rows if key.endpoint)
        if self._book.take(who, sequence, rows) and told:
            self._hub.feed(e.OutcomesReported(rows=told))
        if self._book.waiting:
            self._waiting.set()
        if (stored := self._book.stored(who)) >= sequence:
            # It has no rows, or came before.
            box.put("accepted", stored)

    def show(self, stream_id: str, who: Who, interval: float, routes: Routes, ejected: tuple[str, ...]) -> None:
        """What is under way at a process now."""
        until = self._clock.now() + 3 * max(interval, self.interval) + 1.0
        self._gauges.put(who, stream_id, until, routes)
        self._hub.feed(e.Ejected(gateway_id=who[0], instance_id=who[1], endpoints=ejected))

    def hour(self, interval: float) -> int:
        """To which the rows of a report belong that comes now and is of so many seconds."""
        return hour_of(self._clock.wall(), interval)

    # Questions.

    def routes(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Model and operation -> in flight and waiting, at all gateways."""
        return self._gauges.routes(self._clock.now())

    async def ask(self, query: Query) -> list[Group]:
        """With all that was reported. StoreUnavailable."""
        await self.write()
        return await self._store.usage(query)

    # The database.

    async def write(self) -> None:
        """Stores all that was reported until now. StoreUnavailable: it is kept, and tried again."""
        # What comes meanwhile is left to the next turn, so that a stream of reports is no stream of writes.
        for _ in range(self._book.waiting):
            await self._hub.change(self._write_one)

    async def finish(self, seconds: float) -> None:
        """Writes what waits, for at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.write()
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("stopping with usage that is not stored; gateways that are there report it again: %s", error)

    async def _write_one(self) -> None:
        batch = self._book.batch()
        if batch is None:
            return
        await self._hub.stored(self._store.add_usage(batch, self._clock.wall()))
        self._book.written(batch)
        for who, box in self._streams.values():
            if who in batch.reported:
                box.put("accepted", self._book.stored(who))

    async def _write_behind(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            try:
                await self.write()
            except StoreUnavailable as error:
                log.debug("usage is not stored: %s", error)
                self._waiting.set()
                await asyncio.sleep(_TRY_AGAIN)
            else:
                await asyncio.sleep(_WRITE_EVERY)

    async def _prune(self) -> None:
        while True:
            try:
                await self.prune()
            except StoreUnavailable as error:
                log.debug("old usage is not dropped: %s", error)
            await asyncio.sleep(_PRUNE_EVERY)

    async def prune(self) -> None:
        """Drops what is older than is to be kept. StoreUnavailable."""
        wall = self._clock.wall()

        async def prune() -> None:
            left = await self._hub.stored(self._store.prune_usage(int((wall - self._keep) // 3600), wall - _REMEMBERED))
            self._book.forget([*left, *(who for who, _ in self._streams.values())])

        await self._hub.change(prune)
