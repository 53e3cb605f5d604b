"""A client that leaves, in any phase, on any path, by either way, lets the engine go within 250 ms."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from geniehive.rules.operations import BY_PATH
from tests.support.daemons import Cluster
from tests.support.fake_forms import PATHS as FORMS
from tests.support.processes import Process, until
from tests.support.raw_server import Peer
from tests.support.two_ways import (
    EVENT,
    OWN,
    SPARED,
    STREAM,
    WAYS,
    House,
    Loopless,
    Play,
    body_of,
    chunk,
    house_in,
    hung_up,
)

pytestmark = pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.proof)])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with house_in(tmp_path, Cluster if request.param == "uvloop" else Loopless) as made:
        yield made


class Leaving:
    """What the engine sees of a client that leaves."""

    def __init__(self) -> None:
        self.reached, self.gone = asyncio.Event(), asyncio.Event()

    def plays(self, before: bytes | None, repeat: bytes = b"") -> Play:
        """Answers with `before`, then with `repeat` as fast as that is taken, until the other side has gone."""

        async def play(peer: Peer, head: bytes) -> bool:
            await body_of(peer, head)
            if before is not None:
                await peer.send(before)
            self.reached.set()

            async def repeated() -> None:
                while repeat:
                    await peer.send(repeat)

            sending = asyncio.create_task(repeated())
            await peer.gone()
            self.gone.set()
            sending.cancel()
            await asyncio.wait([sending])
            return False

        return play

    async def stalls(self, peer: Peer, head: bytes) -> bool:
        """Takes nothing of the body."""
        peer.writer.transport.pause_reading()
        self.reached.set()
        while not hung_up(peer):
            await asyncio.sleep(0.01)
        self.gone.set()
        return False

    async def listens(self, peer: Peer, head: bytes) -> bool:
        """Takes what there is of the body."""
        self.reached.set()
        await peer.gone()
        self.gone.set()
        return False


HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
FLOOD = chunk(b"data: " + b"x" * 60000 + b"\n\n")
# What the engine is doing when the client leaves, the size of the question, and how much of it is still to come.
PHASES: dict[str, tuple[Callable[[Leaving], Play], int, int]] = {
    "waiting": (lambda seen: seen.plays(None), 0, 0),
    "waiting, long question": (lambda seen: seen.plays(None), 8_000_000, 0),
    "streaming, silent": (lambda seen: seen.plays(STREAM + chunk(EVENT)), 0, 0),
    "streaming, busy": (lambda seen: seen.plays(STREAM, chunk(EVENT)), 0, 0),
    "streaming, flooded": (lambda seen: seen.plays(STREAM, FLOOD), 0, 0),
    "in the middle of a body": (lambda seen: seen.plays(HALF), 0, 0),
    "uploading": (lambda seen: seen.stalls, 30_000_000, 0),
    # Relays take smaller ones whole before they ask.
    "uploading, half there": (lambda seen: seen.listens, 6_000_000, 500_000),
}
# These cost much and differ from others only in size: one path of each kind is enough.
SAMPLED = ("waiting, long question", "streaming, flooded")
SAMPLES = ("/v1/chat/completions", "/v1/audio/transcriptions")


def phases_of(path: str) -> list[str]:
    # A question in JSON is read to its end before an engine is asked.
    unfit = () if path in FORMS else ("uploading, half there",)
    return [name for name in PHASES if name not in unfit and (path in SAMPLES or name not in SAMPLED)]


SOME = ("/v1/chat/completions", "/v1/messages", "/v1/audio/speech", "/v1/audio/transcriptions")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("paths", [SOME, pytest.param(tuple(BY_PATH), marks=pytest.mark.proof)], ids=["some", "all"])
async def test_an_engine_is_spared_when_the_client_leaves(house: House, paths: tuple[str, ...]) -> None:
    await house.start()
    took: dict[str, dict[str, float]] = {}
    for path in paths:
        for name in phases_of(path):
            plays, size, kept_back = PHASES[name]
            for way in WAYS:
                seen = Leaving()
                house.engine.play = plays(seen)
                call = await house.ask(path, way, size, kept_back, stream="stream" in name)
                try:
                    async with asyncio.timeout(5):
                        await seen.reached.wait()
                except TimeoutError:
                    pytest.fail(f"{path}, {name}, {way}: the engine was not asked")
                await asyncio.sleep(0.05)  # so that what was sent is on its way, and buffers are full
                left = time.monotonic()
                # An end in order stands behind what is not taken, where nobody can see it yet.
                call.leave(reset=name == "uploading" and path in FORMS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(3):
                        await seen.gone.wait()
                took.setdefault(path, {})[f"{name}, {way}"] = time.monotonic() - left
    for path, found in took.items():
        print(path, {k: round(v * 1000) for k, v in found.items()})
    assert {(path, k): v for path, found in took.items() for k, v in found.items() if v > SPARED} == {}


async def hangs_up(peer: Peer, head: bytes) -> bool:
    await body_of(peer, head)
    await peer.answer(b"{}", extra=b"Content-Type: application/json\r\nConnection: close\r\n")
    return False


def connecting(process: Process, port: int) -> bool:
    found = psutil.Process(process.pid).net_connections("tcp4")
    return any(c.status == psutil.CONN_SYN_SENT and c.raddr and c.raddr.port == port for c in found)


@pytest.mark.skipif(sys.platform != "linux", reason="what a full queue of connections does differs by system")
@pytest.mark.timeout(180)
async def test_no_connection_is_being_made_after_the_client_left(house: House) -> None:
    # Nodes that look connect too.
    await house.start(node="poll_interval=60.0")
    port = house.engine.server.port
    took: dict[str, float] = {}
    for way, process in zip(WAYS, house.daemons, strict=True):

        async def connects(process: Process = process) -> bool:
            return connecting(process, port)

        async def gave_up(process: Process = process) -> bool:
            return not connecting(process, port)

        for path in BY_PATH:
            # A connection that is kept would be used again.
            house.engine.play = hangs_up
            await (await house.ask(path, way)).answer()
            await house.engine.server.shut()
            call = await house.ask(path, way)
            await until("a connection is being made", connects, 5.0, 0.005)
            call.leave()
            took[f"{path}, {way}"] = await until("none is being made", gave_up, 3.0, 0.005)
            house.engine.server.open()
    print({k: round(v * 1000) for k, v in took.items()})
    assert {k: v for k, v in took.items() if v > SPARED} == {}
