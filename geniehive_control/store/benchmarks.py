"""Benchmark samples in the database: the newest of each service, model and workload, up to a number of them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from geniehive.rules.model import BenchmarkSample
from geniehive_control.core.benchmarks import Query, Series, series
from geniehive_control.store.tables import benchmark_samples

log = logging.getLogger(__name__)

# Parameters of one statement: SQLite's own limit was 999.
_IDS = 500

_body = msgspec.json.Decoder(BenchmarkSample)
_c = benchmark_samples.c
_SERIES = (_c.service, _c.asset_id, _c.workload)


async def add(
    connection: AsyncConnection, insert: Callable[[sa.Table], Any], samples: Sequence[BenchmarkSample], most: int
) -> set[str]:
    """Adds those whose ids are new, and drops what is then beyond `most` of a series. Gives the ids that were new.

    insert: of this database's dialect.
    """
    given: dict[str, BenchmarkSample] = {}
    for sample in samples:
        given.setdefault(sample.sample_id, sample)
    ids = list(given)
    for start in range(0, len(ids), _IDS):
        known = sa.select(_c.sample_id).where(_c.sample_id.in_(ids[start : start + _IDS]))
        for sample_id in await connection.scalars(known):
            del given[sample_id]
    if not given:
        return set()
    put = insert(benchmark_samples).on_conflict_do_nothing()
    await connection.execute(put, [_row(sample) for sample in given.values()])
    for touched in dict.fromkeys(map(series, given.values())):
        await _prune(connection, touched, most)
    return set(given)


async def _prune(connection: AsyncConnection, of: Series, most: int) -> None:
    of_series = sa.and_(*(column == value for column, value in zip(_SERIES, of, strict=True)))
    newest = sa.select(_c.sample_id).where(of_series).order_by(_c.measured.desc(), _c.sample_id.desc()).limit(most)
    await connection.execute(sa.delete(benchmark_samples).where(of_series, _c.sample_id.not_in(newest)))


async def newest(connection: AsyncConnection) -> list[BenchmarkSample]:
    """One of each service, model and workload."""
    number = sa.func.row_number().over(partition_by=_SERIES, order_by=(_c.measured.desc(), _c.sample_id.desc()))
    ranked = sa.select(_c.sample_id, _c.body, number.label("number")).subquery()
    rows = await connection.execute(sa.select(ranked.c.sample_id, ranked.c.body).where(ranked.c.number == 1))
    return _samples(rows)


async def find(connection: AsyncConnection, query: Query) -> list[BenchmarkSample]:
    asked = sa.select(_c.sample_id, _c.body)
    for column, value in zip(_SERIES, (query.service, query.asset_id, query.workload), strict=True):
        if value:
            asked = asked.where(column == value)
    asked = asked.order_by(_c.measured.desc(), _c.sample_id.desc()).limit(query.limit).offset(query.offset)
    return _samples(await connection.execute(asked))


async def forget_host(connection: AsyncConnection, host_id: str) -> None:
    theirs = _c.service.startswith(f"{host_id}/", autoescape=True)
    await connection.execute(sa.delete(benchmark_samples).where(theirs))


def _row(sample: BenchmarkSample) -> dict[str, Any]:
    return {
        "sample_id": sample.sample_id,
        "service": sample.service,
        "asset_id": sample.asset_id,
        "workload": sample.workload,
        "measured": sample.measured,
        "body": msgspec.json.encode(sample).decode(),
    }


def _samples(rows: Any) -> list[BenchmarkSample]:
    found = []
    for row in rows:
        try:
            found.append(_body.decode(row.body))
        except (msgspec.DecodeError, ValueError) as error:
            log.warning("benchmark sample %s can't be read by this version, and is left out: %s", row.sample_id, error)
    return found
