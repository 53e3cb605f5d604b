"""What waits to be written to one stream."""

import asyncio

from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.mailbox import Mailbox


async def test_the_newest_of_a_slot_wins() -> None:
    box: Mailbox[int] = Mailbox()
    box.put("a", 1)
    box.put("b", 2)
    box.put("a", 3)
    assert await box.take() == [3, 2]
    taking = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    assert not taking.done()
    box.put("a", 4)
    assert await taking == [4]


async def test_what_waits_is_taken_before_the_end() -> None:
    box: Mailbox[int] = Mailbox()
    box.put("a", 1)
    first, second = Refusal(Why.SESSION_LOST, "1"), Refusal(Why.NOT_YOURS, "2")
    box.end(first)
    box.end(second)
    box.put("a", 2)
    assert await box.take() == [1]
    assert await box.take() == []
    assert await box.take() == []
    assert box.refusal is first
