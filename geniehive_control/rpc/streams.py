"""Writes a mailbox to a stream while the stream's messages are read.

One task writes and one reads, as gRPC demands. Neither is ever cancelled in the middle of a read that is to be followed
by another.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import grpc

from geniehive_control.core.refusal import Refusal
from geniehive_control.mailbox import Mailbox

T = TypeVar("T")


async def converse(
    context: Any,
    box: Mailbox[T],
    render: Callable[[T], Iterable[Any]],
    take: Callable[[Any], None],
    last_words: Callable[[], Iterable[Any]] = tuple,
) -> None:
    """Until either side ends. Refusal: what the other side is to be told.

    render: the messages for one item of the mailbox.
    take: called with each message that comes; a Refusal from it ends the stream.
    last_words: what is still written if this side ends the stream in good order.
    """
    left = False

    async def read() -> None:
        nonlocal left
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                take(message)
                del message  # the next may be long in coming
            left = True
            box.end()
        except Refusal as refusal:
            box.end(refusal)
        except Exception:
            # What was read is no message of ours, or the stream broke: the writer finds out which.
            box.end()
            raise

    reader = asyncio.create_task(read(), name="stream reader")
    try:
        while items := await box.take():
            await _write(context, items, render)
            del items
        if box.refusal is not None:
            raise box.refusal
        if not left and not reader.done():
            for message in last_words():
                await context.write(message)
    finally:
        reader.cancel()
        (result,) = await asyncio.gather(reader, return_exceptions=True)
    if isinstance(result, Exception):
        raise result


# A function, so that nothing of it, a whole table say, is kept until there is more to write.
async def _write(context: Any, items: list[T], render: Callable[[T], Iterable[Any]]) -> None:
    for item in items:
        for message in render(item):
            await context.write(message)
