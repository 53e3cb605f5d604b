import asyncio

import pytest

from geniehive.kit.outbox import Outbox


class Wire(asyncio.Transport):
    """Notes what is written, in one list with that of others."""

    def __init__(self, name: str, written: list[tuple[str, bytes]], broken: bool = False) -> None:
        super().__init__()
        self._name, self._written, self._broken = name, written, broken
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._broken:
            raise RuntimeError("it can't be written to")
        self._written.append((self._name, bytes(data)))

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


@pytest.fixture
def written() -> list[tuple[str, bytes]]:
    return []


@pytest.fixture
async def outbox() -> Outbox:
    made = Outbox()
    made.under_way = 100
    return made


async def test_with_little_to_do_a_write_leaves_at_once(written: list[tuple[str, bytes]]) -> None:
    outbox = Outbox()
    outbox.under_way = 1
    outbox.write(Wire("a", written), b"1")
    assert written == [("a", b"1")]


async def test_writes_of_a_turn_leave_at_its_end_in_order(outbox: Outbox, written: list[tuple[str, bytes]]) -> None:
    a, b = Wire("a", written), Wire("b", written)
    for transport, data in ((a, b"1"), (b, b"2"), (a, b"3")):
        outbox.write(transport, data)
    assert written == []
    await asyncio.sleep(0)
    assert written == [("a", b"1"), ("b", b"2"), ("a", b"3")]
    outbox.write(a, b"4")
    await asyncio.sleep(0)
    assert written[3:] == [("a", b"4")]


async def test_of_very_many_some_leave_before(outbox: Outbox, written: list[tuple[str, bytes]]) -> None:
    transport = Wire("a", written)
    for _ in range(100):
        outbox.write(transport, b"1")
    assert len(written) == 64
    await asyncio.sleep(0)
    assert len(written) == 100


async def test_what_is_large_leaves_at_once_behind_what_waits(outbox: Outbox, written: list[tuple[str, bytes]]) -> None:
    transport = Wire("a", written)
    large = bytes(100_000)
    outbox.write(transport, b"1")
    outbox.write(transport, large)
    assert written == [("a", b"1"), ("a", large)]
    outbox.write(transport, b"2")
    await asyncio.sleep(0)
    assert written[2:] == [("a", b"2")]


async def test_once_there_is_little_to_do_nothing_is_overtaken(
    outbox: Outbox, written: list[tuple[str, bytes]]
) -> None:
    transport = Wire("a", written)
    outbox.write(transport, b"1")
    outbox.under_way = 0
    outbox.write(transport, b"2")
    assert written == [("a", b"1"), ("a", b"2")]


async def test_connections_that_are_gone_or_broken_keep_nothing_from_others(
    outbox: Outbox, written: list[tuple[str, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    gone, broken, well = Wire("gone", written), Wire("broken", written, broken=True), Wire("well", written)
    for transport in (gone, broken, well):
        outbox.write(transport, b"secret")
    gone.closing = True
    await asyncio.sleep(0)
    assert written == [("well", b"secret")]
    assert broken.closing
    assert "a connection could not be written to" in caplog.text
    assert "secret" not in caplog.text
