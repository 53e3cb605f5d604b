import asyncio
import logging

import pytest

from geniehive.kit.errors import UserError
from geniehive.kit.tasks import Tasks


async def fail() -> None:
    raise RuntimeError("broken")


async def test_a_failure_is_logged_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    with caplog.at_level(logging.ERROR):
        tasks.start(fail(), "first")
        error = await tasks.failed
        second = tasks.start(fail(), "second")
        await asyncio.wait({second})
    assert str(error) == "broken"
    assert [record.getMessage() for record in caplog.records] == ["task first failed", "task second failed"]
    assert "RuntimeError: broken" in caplog.text
    await tasks.close()


async def test_what_a_user_must_mend_is_told_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse() -> None:
        raise UserError("mend this")

    tasks = Tasks()
    tasks.start(refuse(), "refused")
    assert str(await tasks.failed) == "mend this"
    assert caplog.records == []
    await tasks.close()


async def test_who_ends_by_itself_is_forgotten() -> None:
    tasks = Tasks()
    assert await tasks.start(asyncio.sleep(0, "done"), "short") == "done"
    await tasks.close()
    assert not tasks.failed.done()


async def test_closing_ends_what_runs_and_waits_for_it() -> None:
    tasks = Tasks()
    ended = []
    started = asyncio.Event()

    async def linger() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    tasks.start(linger(), "lingers")
    await started.wait()
    await tasks.close()
    assert ended == [True]
    assert not tasks.failed.done()


async def test_a_task_may_close_its_owner() -> None:
    tasks = Tasks()
    other = tasks.start(asyncio.Event().wait(), "other")
    await tasks.start(tasks.close(), "closer")
    assert other.cancelled()
