"""Conversations: what a stream that is at rest keeps."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import grpc

from geniehive_control.mailbox import Mailbox
from geniehive_control.rpc.streams import converse


class Thing:
    """A message or an item, of which is told whether it is still there."""


class Line:
    """A stream whose messages come from a queue."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[object] = asyncio.Queue()
        self.written: asyncio.Queue[weakref.ref[Thing]] = asyncio.Queue()
        self.reads: asyncio.Queue[None] = asyncio.Queue()

    async def read(self) -> object:
        self.reads.put_nowait(None)
        return await self.coming.get()

    async def write(self, message: Thing) -> None:
        self.written.put_nowait(weakref.ref(message))


async def test_what_was_read_and_what_was_written_is_let_go_while_nothing_comes() -> None:
    line, box = Line(), Mailbox[Thing]()
    seen: list[weakref.ref[Thing]] = []

    def render(item: Thing) -> Iterator[Thing]:
        yield Thing()

    talk = asyncio.create_task(converse(line, box, render, lambda message: seen.append(weakref.ref(message))))
    await line.reads.get()
    line.coming.put_nowait(Thing())
    await line.reads.get()
    item = Thing()
    seen.append(weakref.ref(item))
    box.put("slot", item)
    del item
    seen.append(await line.written.get())
    # Until it waits for more to write.
    while box._taker is None:
        await asyncio.sleep(0)
    gc.collect()
    assert [kept() for kept in seen] == [None, None, None]
    line.coming.put_nowait(grpc.aio.EOF)
    await talk
