"""What control does with reports beside the streams that bring them: writing behind, dropping what is old, refusing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from geniehive.kit.backoff import Backoff
from geniehive_control.core.events import Now
from geniehive_control.core.records import Stored
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.core.usage import NUMBERS, By, Key, Query, Who
from geniehive_control.hub import Hub
from geniehive_control.ports import StoreUnavailable
from geniehive_control.usage import Usage
from tests.support.control_server import until
from tests.support.fake_store import FakeStore

DAY = 86400.0
WHO: Who = ("gw", "1")


class Clock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


@asynccontextmanager
async def running(store: FakeStore, clock: Clock) -> AsyncIterator[Usage]:
    now = Now(clock.now(), clock.wall())
    hub = Hub(Registry(Stored(cluster_id="c1"), now, Pace()), store, clock, Backoff(0.01, 0.02))
    yield Usage(hub, store, clock, store.reported, keep_days=2.0)
    await hub.close(1.0)


def rows(usage: Usage, *models: str) -> list[tuple[Key, list[float]]]:
    hour = usage.hour(5.0)
    return [(Key(hour, "k", model, 1, "endpoint/a/s/m", "m"), [1, *[0] * (len(NUMBERS) - 1)]) for model in models]


async def test_the_first_report_is_written_at_once_and_others_together() -> None:
    store = FakeStore()
    async with running(store, Clock()) as usage:
        usage.start()
        box = usage.open("s1")
        usage.take("s1", box, WHO, 1, rows(usage, "m"))
        async with asyncio.timeout(0.5):
            assert await box.take() == [1]
        for sequence in range(2, 50):
            usage.take("s1", box, WHO, sequence, rows(usage, "m"))
        async with asyncio.timeout(3):
            assert await box.take() == [49]
        assert store.steps.count("add_usage") == 2


async def test_old_usage_is_dropped_at_the_start_and_then_now_and_again() -> None:
    store, clock = FakeStore(), Clock()
    async with running(store, clock) as usage:
        box = usage.open("s1")
        for sequence, age in ((1, 3.0), (2, 1.0), (3, 0.0)):
            clock.time -= age * DAY
            usage.take("s1", box, WHO, sequence, rows(usage, f"{age:g} days"))
            clock.time += age * DAY
        await usage.write()
        assert len(store.rows) == 3
        usage.start()
        await until(lambda: len(store.rows) == 2)
        assert {key.model for key in store.rows} == {"1 days", "0 days"}
        clock.time += 1.5 * DAY
        await usage.prune()
        assert {key.model for key in store.rows} == {"0 days"}


async def test_what_was_reported_is_in_the_answer_whether_it_was_written_or_not() -> None:
    store, clock = FakeStore(), Clock()
    async with running(store, clock) as usage:
        usage.take("s1", usage.open("s1"), WHO, 1, rows(usage, "m", "n"))
        (group,) = await usage.ask(Query(first=0, end=10**6, limit=10))
        assert group.numbers[0] == 2
        store.failing = "locked"
        with pytest.raises(StoreUnavailable):
            await usage.ask(Query(first=0, end=10**6, group_by=(By.MODEL,), limit=10))


async def test_who_asks_and_leaves_does_not_make_anything_count_twice() -> None:
    store = FakeStore()
    async with running(store, Clock()) as usage:
        usage.take("s1", usage.open("s1"), WHO, 1, rows(usage, "m"))
        store.gate.clear()
        asking = asyncio.create_task(usage.ask(Query(first=0, end=10**6, limit=10)))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        store.gate.set()
        (group,) = await usage.ask(Query(first=0, end=10**6, limit=10))
        assert group.numbers[0] == 1


async def test_what_a_dead_database_leaves_waiting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geniehive_control.core.usage.MOST_ROWS", 3)
    store = FakeStore()
    async with running(store, Clock()) as usage:
        store.failing = "the disk is full"
        box = usage.open("s1")
        usage.take("s1", box, WHO, 1, rows(usage, "a", "b", "c"))
        with pytest.raises(Refusal) as refused:
            usage.take("s1", box, WHO, 2, rows(usage, "d"))
        assert (refused.value.why, refused.value.retry_after) == (Why.CONTROL_UNAVAILABLE, 5.0)
        store.failing = None
        await usage.write()
        usage.take("s1", box, WHO, 2, rows(usage, "d"))
        await usage.write()
        assert sum(numbers[0] for numbers in store.rows.values()) == 4


async def test_a_report_that_is_later_than_three_intervals_is_not_waited_for() -> None:
    clock = Clock()
    async with running(FakeStore(), clock) as usage:
        usage.open("s1")
        usage.show("s1", WHO, 5.0, {("m", 1): (2, 0)}, ())
        clock.time += 15.0
        assert usage.routes() == {("m", 1): (2, 0)}
        clock.time += 2.0
        assert usage.routes() == {}
        usage.show("s1", WHO, 5.0, {("m", 1): (2, 0)}, ())
        usage.close("s1")
        assert usage.routes() == {}


async def test_what_waits_at_the_end_is_written() -> None:
    store = FakeStore()
    async with running(store, Clock()) as usage:
        usage.take("s1", usage.open("s1"), WHO, 1, rows(usage, "m"))
        await usage.finish(1.0)
        assert len(store.rows) == 1
        usage.take("s1", usage.open("s1"), WHO, 2, rows(usage, "n"))
        store.failing = "locked"
        await usage.finish(1.0)
        store.failing = None
        store.gate.clear()
        await usage.finish(0.01)
        assert len(store.rows) == 1
        store.gate.set()
