"""The prober against real sockets."""

import asyncio
import socket

from geniehive.kit import address
from geniehive.rules.model import Relay, Service, Way
from geniehive_control.core import events as e
from geniehive_control.core.health import HealthBook
from geniehive_control.core.probes import Failure, Kind
from geniehive_control.core.reach import Place, Reach
from geniehive_control.prober import Prober, connect
from geniehive_control.questions import Questions


class FakeHub:
    """The time, what is to be tried, and what was told."""

    class Time:
        mono = 0.0

    def __init__(self) -> None:
        self.reach = Reach()
        self.health = HealthBook(10.0)
        self.registry = self
        self.told: list[e.Event] = []
        self.heard = asyncio.Event()

    def now(self) -> Time:
        return self.Time()

    def feed(self, event: e.Event) -> None:
        self.told.append(event)
        self.heard.set()


async def test_a_connection_is_made_and_nothing_is_said() -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.put_nowait(await reader.read())
        except ConnectionError:
            heard.put_nowait(b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await connect(Place("127.0.0.1", port)) is None
        assert await heard.get() == b""


async def test_why_no_connection_comes_about_is_said_in_words() -> None:
    assert await connect(Place("127.0.0.1", address.free_port())) == "nothing listens there"
    assert "name" in str(await connect(Place("no-such-host.invalid", 80), timeout=20))
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        # Fills the queue of those who wait to be accepted.
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        assert "firewall" in str(await connect(Place("127.0.0.1", port), timeout=0.2))
        for other in others:
            other.close()


async def test_what_is_due_is_tried_and_told() -> None:
    hub = FakeHub()
    where = Place("127.0.0.1", address.free_port())
    hub.reach.want("b", frozenset({where}), 0.0)
    running = asyncio.create_task(Prober(hub, Questions("c1")).run())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await hub.heard.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert hub.told == [e.Probed(place=where, failure="nothing listens there")]


async def test_engines_are_asked_when_they_are_due() -> None:
    hub, known = FakeHub(), Service(service="b/e", runtime="vllm", ways=(Way(direct_url="http://127.0.0.1:1"),))
    failure = Failure(Kind.UNWELL, "it answers 503")

    class Answers:
        async def ask(self, service: Service, way: Way, relay: Relay | None) -> Failure:
            assert (service, way, relay) == (known, known.ways[0], None)
            return failure

        async def close(self) -> None:
            pass

    hub.health.tend((), {"b/e": known}, None, True, e.Now(-1.0, 0.0))
    running = asyncio.create_task(Prober(hub, Answers()).run())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await hub.heard.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (event,) = hub.told
    assert isinstance(event, e.Checked)
    assert (event.check.service, event.failure) == ("b/e", failure)
