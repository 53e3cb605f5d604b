"""Brings a database to the newest revision.

Under a lock, so that of several processes one does it and the others find it done; in one transaction, so that it is
done or not; bounded in time. A database of a newer version is refused: downgrading would lose what the older one does
not know.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from geniehive.kit.errors import UserError
from geniehive_control.ports import StoreUnavailable
from geniehive_control.store import engine as engines

if TYPE_CHECKING:
    import alembic.config

# Every revision, oldest first; a test compares them with the files. Known here so that the usual start, of a database
# that is up to date, needs no alembic, which takes longer to import than control to start.
REVISIONS = ("0001", "0002", "0003", "0004")
HEAD = REVISIONS[-1]
VERSION_TABLE = "alembic_version"

_LONGEST = 60.0
# Any number that nobody else in this database locks.
_LOCK = 7_236_451_908


def folder() -> Path:
    """Where the migrations are: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "migrations"
    return checkout if (checkout / "env.py").is_file() else package / "_migrations"


async def to_head(engine: AsyncEngine) -> None:
    """UserError if the database can't be reached or written, or is of a newer version."""
    name = engines.shown(engine.url)
    try:
        async with engines.step(engine, _LONGEST) as connection:
            found = await _revision(connection)
            if found == HEAD:
                return
            if engine.dialect.name == "postgresql":
                await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{int(_LONGEST)}s'"))
                await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                found = await _revision(connection)
            if found is not None and found not in REVISIONS:
                raise UserError(
                    f"the database {name} is at revision {found}, and this version of GenieHive knows revisions up to "
                    f"{HEAD}: a newer version has written it. Upgrade GenieHive, or give it another database"
                )
            if found != HEAD:
                await connection.run_sync(upgrade)
    except StoreUnavailable as error:
        raise UserError(
            f"control cannot start: {error}. Check that it is there, can be written, and is not in use by another "
            "program; or set another database_url or --state-dir"
        ) from error


async def _revision(connection: AsyncConnection) -> str | None:
    """None: a new database."""
    if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table(VERSION_TABLE)):
        return None
    found = await connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return None if found is None else str(found)


def upgrade(connection: sa.Connection, revision: str = "head") -> None:
    """Runs the migrations up to `revision` within the transaction of `connection`."""
    from alembic import command

    settings = configuration()
    settings.attributes["connection"] = connection
    command.upgrade(settings, revision)


def configuration() -> "alembic.config.Config":
    """alembic's own configuration, without a file."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(folder()).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings
