"""Usage on SQLite and on PostgreSQL."""

from pathlib import Path

import pytest

from geniehive_control.core.usage import NUMBERS, Batch, By, Key, Query
from geniehive_control.ports import StoreUnavailable
from geniehive_control.store.database import Database, open_database

HOUR = 491_000


def key(model: str = "m", hour: int = HOUR, **fields: object) -> Key:
    made = Key(hour, "k", model, 1, f"endpoint/gpu-1/ollama/{model}", model)
    return made._replace(**fields)  # type: ignore[arg-type]


def numbers(**given: float) -> list[float]:
    return [given.get(name, 0) for name in NUMBERS]


def batch(sequence: int, *rows: tuple[Key, list[float]], who: tuple[str, str] = ("gw", "1")) -> Batch:
    made = Batch()
    made.rows = dict(rows)
    made.reported = {who: sequence}
    return made


def query(*by: By, first: int = 0, end: int = 10**6, limit: int = 100, offset: int = 0, **filters: str | int) -> Query:
    pairs = tuple((By[name.upper()], value) for name, value in filters.items())
    return Query(first=first, end=end, group_by=by, filters=pairs, limit=limit, offset=offset)


async def requests(database: Database, asked: Query) -> list[tuple[object, ...]]:
    return [(*group.values, group.numbers[0]) for group in await database.usage(asked)]


async def test_of_nothing_the_sum_is_zero(database: Database) -> None:
    (group,) = await database.usage(query())
    assert (group.values, list(group.numbers)) == ((), numbers())
    assert await database.usage(query(By.MODEL)) == []


async def test_batches_add_up(database: Database, database_url: str, tmp_path: Path) -> None:
    full = {name: float(index) if "seconds" in name else index for index, name in enumerate(NUMBERS, 1)}
    await database.add_usage(batch(1, (key(), numbers(**full)), (key("n"), numbers(requests=5))), 1.0)
    await database.add_usage(batch(2, (key(), numbers(**full))), 2.0)
    (m,) = await database.usage(query(model="m"))
    assert list(m.numbers) == [2 * value for value in full.values()]
    assert all(isinstance(value, float if "seconds" in name else int) for name, value in zip(NUMBERS, m.numbers))  # noqa: B905
    assert (await database.load()).reported == {("gw", "1"): 2}
    # As after a restart.
    again = await open_database(database_url, tmp_path)
    await again.add_usage(batch(3, (key(), numbers(requests=1))), 3.0)
    assert await requests(again, query(By.MODEL)) == [("n", 5), ("m", 3)]
    await again.close()


async def test_a_batch_that_is_written_again_counts_once(database: Database) -> None:
    made = batch(1, (key(), numbers(requests=1)))
    made.reported["gw", "2"] = 7
    for _ in range(3):
        await database.add_usage(made, 1.0)
    assert await requests(database, query()) == [(1,)]
    assert (await database.load()).reported == {("gw", "1"): 1, ("gw", "2"): 7}


async def test_a_batch_that_fails_leaves_no_trace(database: Database) -> None:
    bad = batch(1, (key(), numbers(requests=1)), (key("n"), numbers(requests=2**70)))
    with pytest.raises((StoreUnavailable, OverflowError)):
        await database.add_usage(bad, 1.0)
    assert await requests(database, query()) == [(0,)]
    assert (await database.load()).reported == {}


async def test_sums_by_every_dimension(database: Database) -> None:
    rows = (
        (key(), numbers(requests=1)),
        (key(hour=HOUR + 30), numbers(requests=2)),
        (key(key_id="k2", operation=3), numbers(requests=4)),
        (key("n", endpoint="endpoint/gpu-2/vllm/org/n"), numbers(requests=8)),
        (key("n", endpoint="", route_label=""), numbers(requests=16)),
        (key(route_label="other"), numbers(requests=32)),
    )
    await database.add_usage(batch(1, *rows), 1.0)
    assert await requests(database, query(By.KEY)) == [("k", 59), ("k2", 4)]
    assert await requests(database, query(By.MODEL)) == [("m", 39), ("n", 24)]
    assert await requests(database, query(By.HOST)) == [("gpu-1", 39), ("", 16), ("gpu-2", 8)]
    assert await requests(database, query(By.SERVICE)) == [("gpu-1/ollama", 39), ("", 16), ("gpu-2/vllm", 8)]
    assert await requests(database, query(By.ENDPOINT, host="gpu-2")) == [("endpoint/gpu-2/vllm/org/n", 8)]
    assert await requests(database, query(By.OPERATION)) == [(1, 59), (3, 4)]
    assert await requests(database, query(By.HOUR)) == [(HOUR, 61), (HOUR + 30, 2)]
    day = HOUR // 24
    assert await requests(database, query(By.DAY)) == [(day, 61), ((HOUR + 30) // 24, 2)]
    assert await requests(database, query(By.MODEL, By.KEY)) == [("m", "k", 35), ("n", "k", 24), ("m", "k2", 4)]
    assert await requests(database, query(By.MODEL, By.MODEL, model="n")) == [("n", "n", 24)]
    assert await requests(database, query(day=day, operation=1, key="k")) == [(57,)]
    assert await requests(database, query(first=HOUR + 1, end=HOUR + 30)) == [(0,)]
    assert await requests(database, query(first=HOUR + 30, end=HOUR + 31)) == [(2,)]


async def test_pages(database: Database) -> None:
    await database.add_usage(batch(1, *((key(f"m{n}"), numbers(requests=n // 2)) for n in range(5))), 1.0)
    assert await requests(database, query(By.MODEL, limit=2)) == [("m4", 2), ("m2", 1)]
    assert await requests(database, query(By.MODEL, limit=2, offset=2)) == [("m3", 1), ("m0", 0)]
    assert await requests(database, query(By.MODEL, limit=2, offset=4)) == [("m1", 0)]


async def test_names_may_be_anything(database: Database) -> None:
    odd = "%_'\"\n ünïcode " + "x" * 680
    await database.add_usage(batch(1, (key(odd), numbers(requests=1)), (key(odd + "y"), numbers(requests=2))), 1.0)
    assert await requests(database, query(By.MODEL, model=odd)) == [(odd, 1)]


async def test_old_hours_and_silent_processes_are_dropped(database: Database) -> None:
    await database.add_usage(batch(1, (key(hour=10), numbers(requests=1)), (key(hour=11), numbers(requests=2))), 5.0)
    await database.add_usage(batch(4, (key(hour=12), numbers(requests=4)), who=("gw", "2")), 6.0)
    assert await database.prune_usage(11, 6.0) == {("gw", "2"): 4}
    assert await requests(database, query(By.HOUR)) == [(12, 4), (11, 2)]
    assert (await database.load()).reported == {("gw", "2"): 4}


async def test_many_rows_at_once(database: Database) -> None:
    rows = [(key(f"m{n}"), numbers(requests=1, duration_3=1)) for n in range(1050)]
    await database.add_usage(batch(1, *rows), 1.0)
    await database.add_usage(batch(2, *rows), 1.0)
    assert await requests(database, query()) == [(2100,)]


async def test_what_was_learned_in_the_last_day_is_loaded(database: Database) -> None:
    assert (await database.load()).learned == ()
    seen = numbers(
        requests_succeeded=2, attempts=3, attempts_cut=1, requests_with_tokens=2, completion_tokens=30,
        decode_tokens=30, decode_seconds=0.5, prefill_tokens=100, prefill_seconds=0.25, cold_starts=1,
        cold_start_seconds=4.0, duration_3=2,
    )  # fmt: skip
    rows = [
        (key(), seen),
        (key(hour=HOUR - 23, key_id="other"), seen),
        (key(hour=HOUR - 24), seen),
        (key("n"), seen),
        (key("n", endpoint=""), seen),
    ]
    await database.add_usage(batch(1, *rows), 1.0)
    learned = {(found.endpoint, found.model): found for found in (await database.load()).learned}
    assert learned.keys() == {("endpoint/gpu-1/ollama/m", "m"), ("endpoint/gpu-1/ollama/n", "n")}
    found = learned["endpoint/gpu-1/ollama/m", "m"]
    assert (found.attempts, found.cut, found.succeeded, found.with_tokens) == (6, 2, 4, 4)
    assert (found.completion_tokens, found.decode_tokens, found.decode_seconds) == (60, 60, 1.0)
    assert (found.prefill_tokens, found.prefill_seconds) == (200, 0.5)
    assert (found.cold_starts, found.cold_start_seconds, found.gateway) == (2, 8.0, "")
    assert [n for n, count in enumerate(found.duration) if count] == [3]
    assert found.duration[3] == 4
