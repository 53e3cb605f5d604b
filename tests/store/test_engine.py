"""Addresses of databases, and what their errors mean."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from geniehive.kit.errors import UserError
from geniehive_control.ports import StoreUnavailable
from geniehive_control.store import engine as engines
from geniehive_control.store.database import Database, open_database


@pytest.mark.parametrize(
    ("given", "driver", "shown"),
    [
        (None, "sqlite+aiosqlite", "/state/control.db"),
        ("sqlite:////data/x.db", "sqlite+aiosqlite", "/data/x.db"),
        ("postgresql://u:secret@h/d", "postgresql+asyncpg", "postgresql://u:***@h/d"),
        ("postgresql+asyncpg://u:secret@h:1/d", "postgresql+asyncpg", "postgresql://u:***@h:1/d"),
        ("postgres://h/d?sslmode=require", "postgresql+asyncpg", "postgresql://h/d"),
    ],
)
def test_urls(given: str | None, driver: str, shown: str) -> None:
    url = engines.parse(given, Path("/state"))
    assert url.drivername == driver
    assert engines.shown(url) == shown
    assert "sslmode" not in url.query


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        "mysql://u:secret@h/d",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://u:p@h:port/d",
    ],
)
def test_wrong_urls(given: str) -> None:
    with pytest.raises(UserError, match="sqlite:///") as caught:
        engines.parse(given, Path("/state"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", ["postgresql://u:secret@h/d?connect_timeout=5", "sqlite:///x.db?mode=ro"])
def test_options_that_do_nothing(given: str) -> None:
    with pytest.raises(UserError, match=r"an option that control cannot use, '(connect_timeout|mode)'"):
        engines.parse(given, Path("/state"))


async def test_no_postgres_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"control cannot start: the database postgresql://u:\*\*\*@127\.0\.0\.1:1/d"):
        await open_database("postgresql://u:secret@127.0.0.1:1/d", tmp_path)


@pytest.mark.postgres
async def test_a_wrong_database_name(postgres: str, tmp_path: Path) -> None:
    url = engines.parse(postgres, tmp_path).set(database="nothing_here").render_as_string(hide_password=False)
    with pytest.raises(UserError, match='database "nothing_here" does not exist'):
        await open_database(url, tmp_path)


async def test_sqlite_is_set_up(tmp_path: Path) -> None:
    database = await open_database(None, tmp_path)
    file = tmp_path / "control.db"
    assert file.stat().st_mode & 0o777 == 0o600
    async with database._engine.connect() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)):
            assert (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar() == value
    await database.close()


async def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "control.db").mkdir()
    with pytest.raises(UserError, match=r"cannot open the database .*control\.db: Is a directory"):
        await open_database(None, tmp_path)


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        await open_database(f"sqlite:///{tmp_path}/missing/x.db", tmp_path)


async def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(engines, "_BUSY_TIMEOUT_MS", 50)
    return await open_database(None, tmp_path)


async def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await locked(tmp_path, monkeypatch)
    other = sqlite3.connect(tmp_path / "control.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="database is locked"):
        await database.ping()
    other.execute("ROLLBACK")
    other.close()
    await database.ping()
    await database.close()


async def test_a_full_database(tmp_path: Path) -> None:
    database = await open_database(None, tmp_path)
    async with database._engine.connect() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
        await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    from geniehive.rules.model import Host
    from geniehive_control.core.records import StoredHost

    big = StoredHost(host=Host(host_id="a", labels={"x": "y" * 1_000_000}))
    with pytest.raises(StoreUnavailable, match="full"):
        await database.put_hosts([big])
    assert (await database.load()).hosts == ()
    await database.close()


async def test_a_database_that_stalls(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.01 s"):
        async with engines.step(database._engine, 0.01):
            await asyncio.sleep(1)
    await database.ping()


@pytest.mark.postgres
async def test_postgres_that_comes_back(postgres: str, tmp_path: Path) -> None:
    import sqlalchemy as sa

    database = await open_database(postgres, tmp_path)
    other = await open_database(postgres, tmp_path)
    # As a restart of the server does: every connection of ours is gone.
    async with other._engine.begin() as connection:
        await connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
    await database.ping()
    await database.close()
    await other.close()


def test_words_of_a_driver() -> None:
    class Wrapped(Exception):
        orig = ValueError("<class 'asyncpg.exceptions.SomeError'>: the\n text")

    assert engines.words(Wrapped()) == "the text"
    assert engines.words(ValueError("plain")) == "plain"
    assert engines.words(ValueError()) == "ValueError"
