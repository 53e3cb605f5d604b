"""Usage in the database: batches added to the sums of their hours, and sums of these for questions.

Sums are made by the database, on columns: a year's rows are not carried here to be added up.
"""

import hashlib
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from geniehive_control.core.figures import EndpointOutcomes
from geniehive_control.core.usage import NUMBERS, Batch, By, Group, Key, Query, Who, outcomes
from geniehive_control.store.tables import usage, usage_reports

# Rows per statement: to make their parameters takes the event loop some milliseconds.
_ROWS = 100
# Speeds are learned from these after a restart.
_LEARNED_HOURS = 24

_COLUMNS: Mapping[By, sa.ColumnElement[Any]] = {
    By.KEY: usage.c.key_id,
    By.MODEL: usage.c.model,
    By.HOST: usage.c.host,
    By.SERVICE: usage.c.service,
    By.ENDPOINT: usage.c.endpoint,
    By.OPERATION: usage.c.operation,
    By.HOUR: usage.c.hour,
    By.DAY: usage.c.hour // 24,
}


async def add(connection: AsyncConnection, insert: Callable[[sa.Table], Any], batch: Batch, at: float) -> None:
    """The batch, unless it is in there already: one whose commit was not heard of is written again.

    insert: of this database's dialect. at: seconds since the epoch.
    """
    (gateway_id, instance_id), sequence = next(iter(batch.reported.items()))
    reports = usage_reports.c
    known = sa.select(reports.sequence).where(reports.gateway_id == gateway_id, reports.instance_id == instance_id)
    if ((await connection.scalar(known)) or 0) >= sequence:
        return
    statement = insert(usage)
    sums = {name: usage.c[name] + statement.excluded[name] for name in NUMBERS}
    put = statement.on_conflict_do_update(index_elements=["hour", "digest"], set_=sums)
    rows = iter(batch.rows.items())
    while part := [_row(key, numbers) for key, numbers in islice(rows, _ROWS)]:
        await connection.execute(put, part)
    statement = insert(usage_reports)
    newer = {name: statement.excluded[name] for name in ("sequence", "at")}
    put = statement.on_conflict_do_update(index_elements=["gateway_id", "instance_id"], set_=newer)
    heard = [
        {"gateway_id": gateway_id, "instance_id": instance_id, "sequence": sequence, "at": at}
        for (gateway_id, instance_id), sequence in batch.reported.items()
    ]
    await connection.execute(put, heard)


async def reported(connection: AsyncConnection) -> dict[Who, int]:
    """The last report of each process that is in there."""
    rows = await connection.execute(sa.select(usage_reports))
    return {(row.gateway_id, row.instance_id): row.sequence for row in rows}


async def learned(connection: AsyncConnection) -> list[EndpointOutcomes]:
    """What was seen of endpoints in the last day of which anything is in there."""
    newest = await connection.scalar(sa.select(sa.func.max(usage.c.hour)))
    if newest is None:
        return []
    sums = [sa.func.sum(usage.c[name]) for name in NUMBERS]
    found = sa.select(usage.c.endpoint, usage.c.model, *sums).group_by(usage.c.endpoint, usage.c.model)
    rows = await connection.execute(found.where(usage.c.hour > newest - _LEARNED_HOURS, usage.c.endpoint != ""))
    return [outcomes(row[0], row[1], "", [_number(value) for value in row[2:]]) for row in rows]


async def groups(connection: AsyncConnection, query: Query) -> list[Group]:
    columns = [_COLUMNS[by].label(f"by_{number}") for number, by in enumerate(query.group_by)]
    # Of an empty set the sum is NULL.
    sums = [sa.func.coalesce(sa.func.sum(usage.c[name]), 0).label(name) for name in NUMBERS]
    found = sa.select(*columns, *sums).where(usage.c.hour >= query.first, usage.c.hour < query.end)
    for by, value in query.filters:
        found = found.where(_COLUMNS[by] == value)
    found = found.group_by(*columns).order_by(sa.desc("requests"), *(column.name for column in columns))
    rows = await connection.execute(found.limit(query.limit).offset(query.offset))
    width = len(columns)
    # PostgreSQL's sums of integers are decimals.
    return [Group(tuple(row[:width]), [_number(value) for value in row[width:]]) for row in rows]


async def prune(connection: AsyncConnection, first: int, since: float) -> dict[Who, int]:
    """Drops hours before `first`, and processes not heard of since. Gives those that are left."""
    await connection.execute(sa.delete(usage).where(usage.c.hour < first))
    await connection.execute(sa.delete(usage_reports).where(usage_reports.c.at < since))
    return await reported(connection)


def _row(key: Key, numbers: list[float]) -> dict[str, Any]:
    said = "\0".join((key.key_id, key.model, str(key.operation), key.endpoint, key.route_label))
    digest = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
    return {
        "hour": key.hour,
        "digest": digest,
        "key_id": key.key_id,
        "model": key.model,
        "operation": key.operation,
        "endpoint": key.endpoint,
        "route_label": key.route_label,
        "host": key.host,
        "service": key.service,
        **dict(zip(NUMBERS, numbers, strict=True)),
    }


def _number(value: Any) -> float:
    return value if isinstance(value, float) else int(value)
