"""Migrations: under a lock, in one step, and equal to the tables."""

import asyncio
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine

from geniehive.kit.errors import UserError
from geniehive_control.store import engine as engines
from geniehive_control.store import migrate
from geniehive_control.store.database import Database, open_database
from geniehive_control.store.tables import metadata


def test_the_revisions_known_are_those_there_are() -> None:
    scripts = ScriptDirectory.from_config(migrate.configuration())
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == migrate.REVISIONS
    assert scripts.get_current_head() == migrate.HEAD


async def test_the_tables_are_what_migrations_lead_to(database: Database) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with database._engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_of_several_that_start_at_once_one_does_it(database_url: str, tmp_path: Path) -> None:
    opened = await asyncio.gather(*(open_database(database_url, tmp_path) for _ in range(4)))
    ids = {(await database.load()).cluster_id for database in opened}
    assert len(ids) == 1
    for database in opened:
        await database.close()


async def test_a_new_file_that_several_open_at_once_is_locked_for_none(tmp_path: Path) -> None:
    # SQLite answers at once that it is locked, but only now and then.
    for number in range(40):
        engines_ = [engines.create(engines.parse(f"sqlite:///{tmp_path}/{number}.db", tmp_path)) for _ in range(4)]

        async def ask(engine: AsyncEngine) -> str | None:
            async with engines.step(engine) as connection:
                found: str | None = await connection.scalar(sa.text("PRAGMA journal_mode"))
                return found

        assert await asyncio.gather(*map(ask, engines_)) == ["wal"] * 4
        for engine in engines_:
            await engine.dispose()


async def test_a_database_that_is_up_to_date_needs_no_alembic(
    database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "upgrade", lambda connection: pytest.fail("upgraded"))
    again = await open_database(database_url, tmp_path)
    await again.close()


async def test_a_newer_database_is_refused(database: Database, database_url: str, tmp_path: Path) -> None:
    async with database._engine.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match=rf"revision 9999, .* up to {migrate.HEAD}: .* Upgrade GenieHive"):
        await open_database(database_url, tmp_path)


async def test_a_migration_that_fails_leaves_no_trace(database_url: str, tmp_path: Path) -> None:
    engine = engines.create(engines.parse(database_url, tmp_path))
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE services (other INTEGER)"))
    with pytest.raises(UserError, match=r"services.* already exists"):
        await open_database(database_url, tmp_path)
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    assert tables == ["services"]
    await engine.dispose()


async def test_a_database_of_the_first_version_is_brought_up_to_date(database_url: str, tmp_path: Path) -> None:
    engine = engines.create(engines.parse(database_url, tmp_path))
    async with engine.begin() as connection:
        await connection.run_sync(migrate.upgrade, "0001")
        body = '{"host":{"host_id":"gpu-1"}}'
        statement = "INSERT INTO hosts (host_id, body, joined, last_seen, online) VALUES ('gpu-1', :body, 1, 2, true)"
        await connection.execute(sa.text(statement), {"body": body})
    await engine.dispose()
    opened = await open_database(database_url, tmp_path)
    stored = await opened.load()
    assert [(host.host_id, host.certified) for host in stored.hosts] == [("gpu-1", False)]
    assert (stored.certificates, stored.tokens) == ((), ())
    await opened.close()


def test_migrations_are_found_in_a_checkout_and_in_a_wheel(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrate.folder() == root / "migrations"
    installed = tmp_path / "site-packages/geniehive_control/store/migrate.py"
    monkeypatch.setattr(migrate, "__file__", str(installed))
    assert migrate.folder() == tmp_path / "site-packages/geniehive_control/_migrations"


def test_migrations_are_not_run_by_hand() -> None:
    from alembic import command

    with pytest.raises(SystemExit, match="control itself"):
        command.upgrade(migrate.configuration(), "head")


def test_each_migration_says_what_it_does(root: Path) -> None:
    for file in (root / "migrations/versions").glob("*.py"):
        assert re.match(r'"""[A-Z].+\."""\n', file.read_text()), file
