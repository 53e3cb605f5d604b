"""Who reads slowly holds back who writes, and almost nothing is kept between, in answers and in uploads."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from geniehive.kit import address
from tests.support.daemons import Cluster
from tests.support.raw_server import Peer
from tests.support.two_ways import (
    OWN,
    STREAM,
    WAYS,
    Call,
    House,
    Loopless,
    Play,
    body_of,
    chunk,
    house_in,
    resident,
)

pytestmark = pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")

HELD = 256 * 1024  # bytes that the gateway keeps of a call at most
# By a relay: what that keeps too, and what TLS reads at once, whose size is the event loop's own.
RELAYED = 3 * HELD
CALLS = 16


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.proof)])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with house_in(tmp_path, Cluster if request.param == "uvloop" else Loopless) as made:
        yield made


def queued(house: House) -> int:
    """Bytes that stand in the sockets of calls: between client, gateway, relay and engine."""
    relay = psutil.Process(house.daemons[1].pid).net_connections("tcp4")
    listening = {found.laddr.port for found in relay if found.status == psutil.CONN_LISTEN}
    gateway = address.split(house.cluster.gateway_address)[1]
    ports = {house.engine.server.port, gateway, *listening}
    size = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        if state == "01" and ports & {int(local[9:], 16), int(remote[9:], 16)}:
            size += sum(int(queue, 16) for queue in queues.split(":"))
    return size


async def still(moved: Callable[[], int]) -> int:
    """When nothing moves any more, how far it got."""
    last = -1
    while moved() != last:
        last = moved()
        await asyncio.sleep(0.4)
    return last


@pytest.mark.skipif(sys.platform != "linux", reason="what stands in sockets is read from /proc")
async def test_a_client_that_stops_reading_holds_the_engine_back(house: House) -> None:
    await house.start()
    writers: dict[asyncio.StreamWriter, int] = {}

    async def floods(peer: Peer, head: bytes) -> bool:
        await body_of(peer, head)
        await peer.send(STREAM)
        piece = chunk(b"data: " + b"x" * 65_000 + b"\n\n")
        writers[peer.writer] = 0
        with contextlib.suppress(ConnectionError):
            while True:
                writers[peer.writer] += len(piece)
                await peer.send(piece)
        return False

    def sent() -> int:
        return sum(size - writer.transport.get_write_buffer_size() for writer, size in writers.items())

    house.engine.play = floods
    for way, most in zip(WAYS, (HELD, RELAYED), strict=True):
        writers.clear()
        calls = []
        for _ in range(CALLS):
            calls.append(await house.call(way, stream=True))
            calls[-1].writer.transport.pause_reading()
        gone = await still(sent)
        held = gone - queued(house) - sum(len(call.reader._buffer) for call in calls)  # type: ignore[attr-defined]
        print(way, "sent", gone // CALLS, "held", held // CALLS, "each")
        assert held // CALLS <= most
        for call in calls:
            call.leave()


def waits(go: asyncio.Event, reading: asyncio.Semaphore, got: list[int]) -> Play:
    """Takes nothing of a body until it may."""

    async def play(peer: Peer, head: bytes) -> bool:
        peer.writer.transport.pause_reading()
        reading.release()
        await go.wait()
        peer.writer.transport.resume_reading()
        got.append(len(await body_of(peer, head)))
        await peer.answer(b"{}")
        return True

    return play


async def test_an_engine_that_takes_nothing_holds_the_question_back(house: House) -> None:
    await house.start()
    size = 50_000_000
    got: list[int] = []
    for way in WAYS:
        go, reading = asyncio.Event(), asyncio.Semaphore(0)
        house.engine.play = waits(go, reading, got)
        before = resident(house.daemons[1])
        call = await house.call(way, size)
        await reading.acquire()
        await asyncio.sleep(0.5)
        grown = resident(house.daemons[1]) - before
        print(way, "node grew by", grown)
        assert grown < 4_000_000
        go.set()
        assert (await call.answer(30.0)).status == 200
    assert got[0] == got[1] > size


@pytest.mark.skipif(sys.platform != "linux", reason="what stands in sockets is read from /proc")
async def test_an_engine_that_takes_nothing_holds_an_upload_back(house: House) -> None:
    await house.start()
    size, calls = 25_000_000, 6
    got: list[int] = []
    for way, most in zip(WAYS, (HELD, RELAYED), strict=True):
        go, reading = asyncio.Event(), asyncio.Semaphore(0)
        peers: list[Peer] = []

        wait = waits(go, reading, got)

        async def play(peer: Peer, head: bytes, wait: Play = wait, peers: list[Peer] = peers) -> bool:
            peers.append(peer)
            return await wait(peer, head)

        house.engine.play = play
        made = [await house.ask("/v1/audio/transcriptions", way, size) for _ in range(calls)]
        for _ in made:
            await reading.acquire()

        def sent(made: list[Call] = made) -> int:
            return calls * size - sum(call.writer.transport.get_write_buffer_size() for call in made)

        gone = await still(sent)
        arrived = sum(len(peer.reader._buffer) for peer in peers)  # type: ignore[attr-defined]
        held = gone - queued(house) - arrived
        print(way, "sent", gone // calls, "held", held // calls, "for each upload")
        assert held // calls <= most
        go.set()
        for call in made:
            assert (await call.answer(30.0)).status == 200
    assert len(got) == 2 * calls
    assert min(got) > size
