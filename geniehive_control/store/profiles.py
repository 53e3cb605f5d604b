"""Statements about roles and aliases that operators made. Owners and etags are not kept: they follow from the rest."""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from geniehive.rules.model import Alias, Owner, Role
from geniehive_control.store.tables import aliases, roles

log = logging.getLogger(__name__)

_body = msgspec.json.Decoder(Role)


async def load(connection: AsyncConnection) -> tuple[tuple[Role, ...], tuple[Alias, ...]]:
    found = []
    for row in await connection.execute(sa.select(roles).order_by(roles.c.role_id)):
        try:
            found.append(_body.decode(row.body))
        except (msgspec.DecodeError, ValueError) as error:
            # It stays in the database, for the version that can.
            log.warning("role %s can't be read by this version, and is left out: %s", row.role_id, error)
    rows = await connection.execute(sa.select(aliases).order_by(aliases.c.alias))
    return tuple(found), tuple(Alias(alias=row.alias, target=row.target) for row in rows)


async def put_role(connection: AsyncConnection, insert: Callable[[sa.Table], Any], role: Role) -> None:
    """insert: of this database's dialect."""
    bare = msgspec.structs.replace(role, owner=Owner.UNSPECIFIED, etag="")
    values = {"role_id": role.role_id, "body": msgspec.json.encode(bare).decode()}
    statement = insert(roles).values(values)
    newer = {"body": statement.excluded.body}
    await connection.execute(statement.on_conflict_do_update(index_elements=["role_id"], set_=newer))


async def drop_role(connection: AsyncConnection, role_id: str) -> None:
    await connection.execute(sa.delete(roles).where(roles.c.role_id == role_id))


async def put_alias(connection: AsyncConnection, insert: Callable[[sa.Table], Any], alias: Alias) -> None:
    statement = insert(aliases).values(alias=alias.alias, target=alias.target)
    newer = {"target": statement.excluded.target}
    await connection.execute(statement.on_conflict_do_update(index_elements=["alias"], set_=newer))


async def drop_alias(connection: AsyncConnection, alias: str) -> None:
    await connection.execute(sa.delete(aliases).where(aliases.c.alias == alias))
