"""Background tasks whose failure is never silent."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from geniehive.kit.errors import UserError

log = logging.getLogger(__name__)


class Tasks:
    """Owns the background tasks of one object.

    A task that fails is logged with its name and traceback, unless by a UserError, and `failed` is set with the
    exception: who owns the process waits on that and ends, because half a daemon is worse than a restarted one.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            # A UserError is no fault of the task's; its text is shown by whoever ends the process.
            if not isinstance(error, UserError):
                log.error("task %s failed", task.get_name(), exc_info=error)
            if not self.failed.done():
                self.failed.set_result(error)

    async def close(self) -> None:
        """Cancels what still runs and waits for it."""
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
