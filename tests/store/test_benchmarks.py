"""Benchmark samples on SQLite and on PostgreSQL."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from geniehive.rules.model import BenchmarkSample, Host
from geniehive_control.core.benchmarks import Query
from geniehive_control.core.records import StoredHost
from geniehive_control.ports import Audit
from geniehive_control.store.database import Database, open_database
from geniehive_control.store.tables import audit

LINE = Audit(at=1.0, caller="k1", action="record benchmark samples", target="gpu-1/ollama")


def sample(sample_id: str, measured: float = 100.0, **fields: Any) -> BenchmarkSample:
    given = {"service": "gpu-1/ollama", "asset_id": "qwen3", "workload": "tool_call/1", **fields}
    return BenchmarkSample(sample_id=sample_id, measured=measured, request_count=5, correctness=0.5, **given)


async def ids(database: Database, limit: int = 100, offset: int = 0, **only: str) -> list[str]:
    return [s.sample_id for s in await database.samples(Query(limit=limit, offset=offset, **only))]


async def test_new_ones_are_added_and_given(database: Database) -> None:
    full = BenchmarkSample(
        sample_id="s1", service="gpu-1/ollama", asset_id="模型", workload="chat/12", measured=1_790_000_000.123456,
        request_count=7, correctness=1 / 3, first_token_seconds=0.1, prefill_tokens_per_second=1e3,
        decode_tokens_per_second=0.5,
    )  # fmt: skip
    assert await database.add_samples([full, sample("s2")], 100, LINE) == {"s1", "s2"}
    assert await database.samples(Query(limit=10)) == [full, sample("s2")]
    # The same ids again, with other figures, and twice in one call.
    assert await database.add_samples([sample("s1"), sample("s3", 5.0), sample("s3", 6.0)], 100, LINE) == {"s3"}
    assert await database.samples(Query(limit=10)) == [full, sample("s2"), sample("s3", 5.0)]
    assert await database.add_samples([sample("s1")], 100, LINE) == set()
    async with database._engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(audit)) == 2


async def test_the_newest_come_first_by_every_filter(database: Database) -> None:
    made = [
        sample(f"s{n}", 100.0 + n // 2, service=f"gpu-{n % 2}/x", asset_id=f"m{n % 3}", workload=f"w/{n % 5}")
        for n in range(30)
    ]
    await database.add_samples(made, 100, LINE)
    ordered = sorted(made, key=lambda s: (s.measured, s.sample_id), reverse=True)
    assert [s.measured for s in await database.samples(Query(limit=100))] == [s.measured for s in ordered]
    for only in (
        {"service": "gpu-1/x"},
        {"asset_id": "m2"},
        {"workload": "w/3"},
        {"service": "gpu-0/x", "asset_id": "m1"},
    ):
        wanted = {s.sample_id for s in made if all(getattr(s, k) == v for k, v in only.items())}
        assert set(await ids(database, **only)) == wanted
    pages = [await ids(database, limit=7, offset=offset) for offset in range(0, 35, 7)]
    assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
    assert len({name for page in pages for name in page}) == 30


async def test_the_oldest_of_each_kind_are_dropped(database: Database) -> None:
    await database.add_samples([sample(f"a{n}", 100.0 + n) for n in range(5)], 3, LINE)
    assert await ids(database) == ["a4", "a3", "a2"]
    others = [sample(f"b{n}", 1.0 + n, workload="tool_call/2") for n in range(2)]
    await database.add_samples([*others, sample("a9", 1.0), sample("a8", 200.0)], 3, LINE)
    assert await ids(database, workload="tool_call/1") == ["a8", "a4", "a3"]
    assert await ids(database, workload="tool_call/2") == ["b1", "b0"]


async def test_the_newest_of_each_are_read_at_start(database: Database, database_url: str, tmp_path: Path) -> None:
    await database.add_samples(
        [sample("a1", 1.0), sample("a2", 2.0), sample("a0", 2.0), sample("b1", 1.0, asset_id="llama")], 100, LINE
    )
    again = await open_database(database_url, tmp_path)
    assert {s.sample_id for s in (await again.load()).samples} == {"a2", "b1"}
    await again.close()


async def test_what_was_measured_goes_with_its_host(database: Database) -> None:
    await database.put_hosts([StoredHost(host=Host(host_id=name, display_name="")) for name in ("gpu_1", "gpuX1")])
    await database.add_samples([sample("a", service="gpu_1/x"), sample("b", service="gpuX1/x")], 100, LINE)
    await database.forget_host("gpu_1", LINE)
    assert await ids(database) == ["b"]


async def test_a_thousand_at_once(database: Database) -> None:
    made = [sample(f"s{n}", float(n), workload=f"w/{n % 10}") for n in range(1000)]
    assert len(await database.add_samples(made, 100, LINE)) == 1000
    assert await database.add_samples(made, 100, LINE) == set()
    assert len(await ids(database, limit=2000)) == 1000
