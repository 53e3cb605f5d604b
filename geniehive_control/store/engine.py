"""Addresses of databases, connections, and what their errors mean."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from geniehive.kit.errors import UserError
from geniehive_control.ports import StoreUnavailable

# A step of the store never takes longer, in seconds: calls that wait for one have 10 s.
STEP_TIMEOUT = 8.0
_BUSY_TIMEOUT_MS = 5000

# After the "?" of an address.
_POSTGRESQL_OPTIONS = ("sslmode", "ssl", "host", "port", "passfile", "target_session_attrs")
_ALLOWED = 'write "sqlite:///FOLDER/FILE", or "postgresql://USER:PASSWORD@HOST/DATABASE"'


def parse(database_url: str | None, folder: Path) -> URL:
    """None: SQLite in `folder`. UserError if it names no database that control can use."""
    if database_url is None:
        return URL.create("sqlite+aiosqlite", database=str(folder / "control.db"))
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        # The error may hold a password, so it isn't shown, nor kept.
        raise UserError(f"database_url cannot be read: {_ALLOWED}") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise UserError(f"database_url names no file, and control must remember: {_ALLOWED}")
        _check_options(url, ())
        return url.set(drivername="sqlite+aiosqlite")
    if kind in ("postgresql", "postgres"):
        try:
            import asyncpg  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise UserError("PostgreSQL needs a driver: pip install 'geniehive[postgres]'") from error
        _check_options(url, _POSTGRESQL_OPTIONS)
        query = dict(url.query)
        if "sslmode" in query:
            # The name that everybody but this driver uses.
            query["ssl"] = query.pop("sslmode")
        return url.set(drivername="postgresql+asyncpg", query=query)
    raise UserError(f"database_url names {kind!r}, which control cannot use: {_ALLOWED}")


def _check_options(url: URL, allowed: tuple[str, ...]) -> None:
    for name in url.query:
        if name not in allowed:
            text = f"allowed are {', '.join(allowed)}" if allowed else "leave them out"
            raise UserError(f"database_url has an option that control cannot use, {name!r}: {text}")


def shown(url: URL) -> str:
    """For messages: without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(query={}).render_as_string(hide_password=True).replace("+asyncpg", "")


def create(url: URL) -> AsyncEngine:
    """UserError if a file cannot be made where SQLite's is to be."""
    if url.get_backend_name() != "sqlite":
        return create_async_engine(
            url,
            pool_size=4,
            max_overflow=0,
            pool_timeout=STEP_TIMEOUT,
            # A server that was restarted is found so before a step begins.
            pool_pre_ping=True,
            connect_args={"timeout": 5, "command_timeout": STEP_TIMEOUT},
        )
    path = Path(str(url.database)).expanduser()
    try:
        # Readable by its owner alone; SQLite gives the files beside it the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise UserError(
            f"cannot open the database {path}: {error.strerror}. "
            "Mend that, or choose another folder (--state-dir) or database_url"
        ) from error
    # One connection: SQLite has one writer anyway, and nobody then waits for a lock of ours.
    engine = create_async_engine(url.set(database=str(path)), pool_size=1, max_overflow=0, pool_timeout=STEP_TIMEOUT)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        # Python's driver would begin transactions by rules of its own.
        connection.isolation_level = None
        connection.run_async(_use_wal)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        # Writes are few, so that what was acknowledged may as well survive a power cut.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        # The lock is taken first, so that a step waits for it, or fails, before it did anything.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


async def _use_wal(connection: Any) -> None:
    """SQLite does not wait if two do this to a new file at once; one of them is told that it is locked."""
    end = asyncio.get_running_loop().time() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            async with connection.execute("PRAGMA journal_mode = WAL"):
                return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or asyncio.get_running_loop().time() >= end:
                raise
        await asyncio.sleep(0.01)


@asynccontextmanager
async def step(engine: AsyncEngine, seconds: float = STEP_TIMEOUT) -> AsyncIterator[AsyncConnection]:
    """A transaction. StoreUnavailable if it fails, for whatever reason of the database's; it has then left no trace."""
    try:
        async with asyncio.timeout(seconds), engine.begin() as connection:
            yield connection
    except TimeoutError as error:
        raise StoreUnavailable(f"the database {shown(engine.url)} did not answer within {seconds:g} s") from error
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(f"the database {shown(engine.url)} fails: {words(error)}") from error
    except Exception as error:
        # A driver's own errors come through while it connects.
        if type(error).__module__.startswith("asyncpg"):
            raise StoreUnavailable(f"the database {shown(engine.url)} fails: {words(error)}") from error
        raise


def words(error: BaseException) -> str:
    """What a database said, in one line and without SQL."""
    origin = getattr(error, "orig", None) or error
    text = " ".join(str(origin).split())
    # "<class 'asyncpg.exceptions...'>: text", as the adapter puts it.
    if text.startswith("<class") and ">: " in text:
        text = text.partition(">: ")[2]
    return text or type(origin).__name__
