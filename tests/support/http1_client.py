"""Runs a test of http1 on both event loops, with a client whose leftovers fail the test."""

import asyncio
import functools
import gc
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from geniehive.kit.http1 import Client


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The test's first parameter is the client. Put it directly above the `def`, below other marks."""

    @functools.wraps(test)
    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_with_client(test, arguments))

    own = list(inspect.signature(test).parameters.values())[1:]
    loop_parameter = inspect.Parameter("new_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([*own, loop_parameter])  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would look through it
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return pytest.mark.parametrize("new_loop", loops.values(), ids=loops.keys())(run)


async def _with_client(test: Callable[..., Awaitable[None]], arguments: dict[str, Any]) -> None:
    """Fails for unretrieved exceptions, and for connections, pool entries and tasks that stay."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with Client() as client:
        await test(client, **arguments)
    gc.collect()
    assert not complaints
    assert client.open_count == 0
    assert not client._idle
    assert not client._closing
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})  # a server may still end its handshake


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop run until the condition holds; a test's timeout ends it otherwise."""
    while not condition():
        await asyncio.sleep(0)
