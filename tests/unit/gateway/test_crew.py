"""Workers' lines to their parent, on real sockets."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import crew
from gateway.core.crew import Snapshot, Whole
from gateway.crew import VARIABLE, Line, Parent, Silent
from tests.unit.gateway.builders import until
from tests.unit.gateway.core.test_crew import snapshot


class Worker:
    """Its line. requests: what it has counted."""

    def __init__(self, parent: Parent, number: int, requests: int = 1) -> None:
        self.requests = requests
        self.asked = 0
        self.line = Line(number, parent.environment[VARIABLE], self._snapshot)
        self.task: asyncio.Task[None]

    def _snapshot(self) -> Snapshot:
        self.asked += 1
        return snapshot(self.requests)


@asynccontextmanager
async def worker(parent: Parent, number: int, requests: int = 1, deaf: bool = False) -> AsyncIterator[Worker]:
    """deaf: it connects, and then takes nothing."""
    made = Worker(parent, number, requests)
    await made.line.connect()
    made.task = asyncio.create_task(asyncio.Event().wait() if deaf else made.line.run())  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.task.cancel()
        await asyncio.wait([made.task])
        await made.line.close()


def seen(whole: Whole) -> tuple[int, list[bool]]:
    """Requests, and who is up."""
    return sum(whole.counts.requests.values()), [state.process is not None for state in whole.states]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "ANSWER", 0.1)
    monkeypatch.setattr(crew, "_AGAIN", 0.01)


async def test_any_worker_knows_of_all() -> None:
    async with Parent(2) as parent, worker(parent, 0, 1) as one, worker(parent, 1, 2) as two:
        assert seen(await one.line.whole()) == (3, [True, True])
        one.requests = 5
        assert seen(await two.line.whole()) == (7, [True, True])
        both = await asyncio.gather(one.line.whole(), two.line.whole(), one.line.whole())
        assert [seen(whole) for whole in both] == [(7, [True, True])] * 3


async def test_a_worker_that_is_gone_still_counts() -> None:
    async with Parent(2) as parent, worker(parent, 0) as one:
        async with worker(parent, 1, 10):
            assert seen(await one.line.whole()) == (11, [True, True])

        await until(lambda: len(parent._lines) == 1)
        assert seen(await one.line.whole()) == (11, [True, False])
        async with worker(parent, 1, 2):
            assert seen(await one.line.whole()) == (13, [True, True])


@pytest.mark.usefixtures("soon")
async def test_one_that_hangs_is_not_waited_for() -> None:
    async with Parent(2) as parent, worker(parent, 0) as one, worker(parent, 1, deaf=True) as two:
        await until(lambda: len(parent._lines) == 2)
        for _ in range(3):
            async with asyncio.timeout(2.0):
                assert seen(await one.line.whole()) == (1, [True, False])
        # Back: what it owes it gives once.
        two.task.cancel()
        two.task = asyncio.create_task(two.line.run())
        await until(lambda: two.asked > 0)
        assert seen(await one.line.whole()) == (2, [True, True])
        assert two.asked == 2


async def test_one_that_dies_while_it_is_asked_is_not_waited_for() -> None:
    async with Parent(2) as parent, worker(parent, 0) as one, worker(parent, 1, deaf=True) as two:
        await until(lambda: len(parent._lines) == 2)
        asking = asyncio.create_task(one.line.whole())
        await until(lambda: bool(parent._open))
        await two.line.close()
        async with asyncio.timeout(crew.ANSWER / 2):
            assert seen(await asking) == (1, [True, False])


@pytest.mark.usefixtures("soon")
async def test_a_line_that_broke_is_made_anew() -> None:
    async with Parent(1) as parent, worker(parent, 0) as one:
        assert seen(await one.line.whole()) == (1, [True])
        parent._lines[0].transport.abort()
        await until(lambda: one.line._streams is None)
        with pytest.raises(Silent, match="no line"):
            await one.line.whole()
        await until(lambda: one.line._streams is not None)
        # It is the same process, and counts on from where it was.
        assert seen(await one.line.whole()) == (1, [True])


async def test_a_parent_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_WHOLE", 0.05)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        line = Line(0, f"{server.sockets[0].getsockname()[1]} secret", snapshot)
        await line.connect()
        with pytest.raises(Silent, match="said nothing"):
            await line.whole()
        await line.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 3) + b"abc",
        struct.pack(">I", 1 << 31),
        crew.framed(crew.Hello("wrong", 0, "p")),
        crew.framed(crew.Gather(1)),
    ],
)
async def test_strangers_are_turned_away(said: bytes) -> None:
    async with Parent(1) as parent:
        port = int(parent.environment[VARIABLE].split()[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        async with asyncio.timeout(5.0):
            try:
                assert await reader.read() == b""
            except ConnectionError:
                pass
        assert not parent._lines
        writer.close()


async def test_a_number_that_no_worker_has() -> None:
    async with Parent(1) as parent, worker(parent, 1) as one:
        await until(lambda: one.line._streams is None)
        assert not parent._lines


def test_who_has_no_parent_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert crew.line_of(0, snapshot) is None
    monkeypatch.setenv(VARIABLE, "1 secret")
    assert crew.line_of(None, snapshot) is None
    assert crew.line_of(0, snapshot) is not None
