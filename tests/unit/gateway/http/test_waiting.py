"""What a call may wait for before it is asked of an engine, or asked again: a turn, and a model that loads."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.core.admission import Admission
from geniehive.kit.http1 import Timeouts
from geniehive.rules.model import Resource
from geniehive.rules.operations import Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import endpoint, route, served, until, upstream
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, SECRET, Gateway

ANSWER = b'{"id":"x","choices":[]}'
LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'


class Engine(RawServer):
    """Holds every request until it is let go. first: status and body of the first answers, before it is well."""

    def __init__(self, *first: tuple[bytes, bytes]) -> None:
        super().__init__(self._serve_peer)
        self.first = list(first)
        self.running = 0
        self.most = 0
        self.asked = 0
        self.gone = 0
        self.go = asyncio.Semaphore(0)
        self.holds = False

    async def _serve_peer(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.asked += 1
            self.running += 1
            self.most = max(self.most, self.running)
            leaves = asyncio.create_task(peer.gone())
            try:
                if self.holds:
                    go = asyncio.create_task(self.go.acquire())
                    await asyncio.wait([go, leaves], return_when=asyncio.FIRST_COMPLETED)
                    if not go.done():
                        go.cancel()
                        self.gone += 1
                        return
            finally:
                self.running -= 1
                leaves.cancel()
                await asyncio.wait([leaves])
            status, body = self.first.pop(0) if self.first else (b"200 OK", ANSWER)
            await peer.answer(body, status, b"Content-Type: application/json\r\nRetry-After: 7\r\n")

    @property
    def url(self) -> str:
        return str(self.origin)


def limited(url: str, limit: int = 1, operation: Operation = Operation.CHAT) -> tuple[Resource, ...]:
    return (
        route("m", "a/e/m", operations=(operation,)),
        endpoint("a/e", "m"),
        upstream("a/e", url, concurrency_limit=limit),
    )


@asynccontextmanager
async def client(gateway: Gateway, path: str = CHAT_PATH) -> AsyncIterator[asyncio.StreamWriter]:
    """One that asks, and may leave."""
    async with gateway.connect() as (_, writer):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {SECRET}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        writer.write(head.encode() + BODY)
        yield writer


async def all_gone(gateway: Gateway) -> None:
    """Within the time that a client that left may still cost anything."""
    began = time.monotonic()
    await until(lambda: not gateway.balance.in_flight and not gateway.handler.open and not gateway.balance.routes())
    assert time.monotonic() - began < 0.25
    assert gateway.balance.admission.waiting == 0


def error(body: bytes) -> dict[str, str]:
    found = json.loads(body)["error"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.attempt.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("gateway.core.attempt.LONGEST_PAUSE", 0.02)


# Loading.


@pytest.mark.usefixtures("short_pauses")
async def test_a_model_that_loads_is_waited_for() -> None:
    loading = b"503 Service Unavailable", LOADING
    async with Engine(loading, loading, loading) as engine, Gateway(*served("m", a=engine.url)) as gateway:
        answer = await gateway.chat()
        assert (answer.status, answer.body) == (200, ANSWER)
        assert answer.headers["x-geniehive-attempts"] == "4"
        assert gateway.balance.in_flight == {}


async def test_another_endpoint_answers_while_one_loads() -> None:
    async with (
        Engine(*[(b"503 Service Unavailable", LOADING)] * 9) as cold,
        Engine() as warm,
        Gateway(*served("m", a=cold.url, b=warm.url)) as gateway,
    ):
        for _ in range(4):
            answer = await gateway.chat()
            assert (answer.status, answer.headers["x-geniehive-host"]) == (200, "b")


@pytest.mark.usefixtures("short_pauses")
async def test_a_model_that_never_loads_is_503_with_retry_after() -> None:
    async with Engine(*[(b"503 Service Unavailable", LOADING)] * 999) as engine:
        async with Gateway(*served("m", a=engine.url), timeouts=Timeouts(first_byte=0.1)) as gateway:
            answer = await gateway.chat()
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert error(answer.body)["code"] == "model_loading"
        assert "Loading model" in error(answer.body)["message"]


async def test_a_client_that_leaves_while_a_model_loads() -> None:
    loading = b"503 Service Unavailable", LOADING
    async with Engine(*[loading] * 999) as engine, Gateway(*served("m", a=engine.url)) as gateway:
        async with client(gateway) as writer:
            await until(lambda: gateway.balance.routes() == [("m", Operation.CHAT, 0, 1)])
            writer.close()
            await all_gone(gateway)
        assert engine.asked == 1


async def test_an_engine_that_comes_while_a_model_loads_is_asked() -> None:
    loading = b"503 Service Unavailable", LOADING
    async with (
        Engine(*[loading] * 999) as cold,
        Engine() as warm,
        Gateway(*served("m", a=cold.url)) as gateway,
    ):
        asked = asyncio.create_task(gateway.chat())
        await until(lambda: gateway.balance.routes() == [("m", Operation.CHAT, 0, 1)])
        gateway.table.apply(served("m", b=warm.url))
        assert (await asked).headers["x-geniehive-host"] == "b"


async def test_an_engine_that_came_after_the_call_answers_when_the_other_dies() -> None:
    reached, die = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        reached.set()
        await die.wait()
        peer.reset()

    async with RawServer(script) as old, Engine() as new, Gateway(*served("m", a=str(old.origin))) as gateway:
        asked = asyncio.create_task(gateway.chat())
        await reached.wait()
        gateway.table.apply(served("m", a=str(old.origin), b=new.url))
        die.set()
        answer = await asked
        assert (answer.status, answer.headers["x-geniehive-host"]) == (200, "b")


async def test_another_503_is_not_waited_for() -> None:
    body = b'{"error":{"code":503,"message":"no slot available","type":"unavailable_error"}}'
    async with Engine((b"503 Service Unavailable", body)) as engine, Gateway(*served("m", a=engine.url)) as gateway:
        answer = await gateway.chat()
        assert (answer.status, answer.body, engine.asked) == (503, body, 1)


# Busy.


async def test_a_429_is_taken_elsewhere_or_passes_unchanged() -> None:
    busy = b"429 Too Many Requests", b'{"error":{"message":"slow down"}}'
    async with Engine(*[busy] * 9) as one, Engine() as two:
        async with Gateway(*served("m", a=one.url, b=two.url)) as gateway:
            assert [(await gateway.chat()).status for _ in range(2)] == [200, 200]
            assert two.asked == 2
        async with Gateway(*served("m", a=one.url)) as gateway:
            answer = await gateway.chat()
            assert (answer.status, answer.body, answer.headers["Retry-After"]) == (429, busy[1], "7")


# Limits.


async def test_no_more_than_the_limit_at_once_and_nobody_is_refused() -> None:
    async with Engine() as engine, Gateway(*limited(engine.url, 2)) as gateway:
        engine.holds = True
        asked = [asyncio.create_task(gateway.chat()) for _ in range(8)]
        await until(lambda: engine.running == 2 and gateway.balance.routes() == [("m", Operation.CHAT, 2, 6)])
        for _ in asked:
            engine.go.release()
        assert [(await one).status for one in asked] == [200] * 8
        assert engine.most == 2
        assert gateway.balance.routes() == []


async def test_a_full_endpoint_gives_way_to_another() -> None:
    async with Engine() as one, Engine() as two:
        resources = *served("m", a=one.url, b=two.url), upstream("a/e", one.url, concurrency_limit=1)
        one.holds = True
        async with Gateway(*resources) as gateway:
            held = asyncio.create_task(gateway.chat())
            await until(lambda: one.running == 1)
            hosts = {(await gateway.chat()).headers["x-geniehive-host"] for _ in range(4)}
            assert hosts == {"b"}
            one.go.release()
            assert (await held).headers["x-geniehive-host"] == "a"


@pytest.mark.parametrize(
    ("path", "operation", "status"),
    [
        (CHAT_PATH, Operation.CHAT, 429),
        ("/v1/responses", Operation.RESPONSES, 503),
        ("/v1/messages", Operation.MESSAGES, 529),
    ],
)
async def test_no_turn_in_time_is_told_as_clients_understand_it(path: str, operation: Operation, status: int) -> None:
    async with Engine() as engine:
        engine.holds = True
        async with Gateway(*limited(engine.url, 1, operation), admission=Admission(wait=0.05)) as gateway:
            async with client(gateway, path):
                await until(lambda: engine.running == 1)
                answer = await gateway.ask("POST", path, BODY)
                assert answer.status == status
                assert int(answer.headers["retry-after"]) >= 1
                assert "a/e has 1 of 1, and none ended within" in error(answer.body)["message"]
                assert gateway.balance.admission.waiting == 0
            await all_gone(gateway)


async def test_a_client_that_leaves_while_it_waits_for_a_turn() -> None:
    async with Engine() as engine, Gateway(*limited(engine.url)) as gateway:
        engine.holds = True
        held = asyncio.create_task(gateway.chat())
        await until(lambda: engine.running == 1)
        async with client(gateway) as writer:
            await until(lambda: gateway.balance.admission.waiting == 1)
            last = asyncio.create_task(gateway.chat())
            await until(lambda: gateway.balance.admission.waiting == 2)
            writer.close()
            await until(lambda: gateway.balance.admission.waiting == 1)
        engine.go.release()
        engine.go.release()
        assert [(await held).status, (await last).status] == [200, 200]
        assert engine.asked == 2
        await all_gone(gateway)


async def test_a_client_that_leaves_its_engine_lets_in_who_waits() -> None:
    async with Engine() as engine, Gateway(*limited(engine.url)) as gateway:
        engine.holds = True
        async with client(gateway) as writer:
            await until(lambda: engine.running == 1)
            waits = asyncio.create_task(gateway.chat())
            await until(lambda: gateway.balance.admission.waiting == 1)
            writer.close()
            await until(lambda: engine.gone == 1, 0.25)
        engine.go.release()
        assert (await waits).status == 200


async def test_a_client_that_leaves_while_a_connection_is_made() -> None:
    """A server that takes the connection, and then says nothing of TLS."""
    reached, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        reached.set()
        await peer.gone()
        gone.set()

    async with RawServer(script) as engine, Gateway(*served("m", a=f"https://127.0.0.1:{engine.port}")) as gateway:
        async with client(gateway) as writer:
            await reached.wait()
            writer.close()
            async with asyncio.timeout(0.25):
                await gone.wait()
        await all_gone(gateway)


# Limits of time.


async def test_who_took_too_long_is_named_with_the_setting() -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async def half(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await peer.gone()

    for script, timeouts, setting in (
        (silent, Timeouts(first_byte=0.05), "timeouts.first_byte"),
        (half, Timeouts(idle=0.05), "timeouts.idle"),
        (silent, Timeouts(total=0.05), "timeouts.total"),
    ):
        async with (
            RawServer(script) as engine,
            Gateway(*served("m", a=str(engine.origin)), timeouts=timeouts) as gateway,
        ):
            answer = await gateway.chat()
            assert (answer.status, error(answer.body)["code"]) == (504, "upstream_timeout")
            assert f"within 0.05 s ({setting})" in error(answer.body)["message"] or (
                f"for 0.05 s ({setting})" in error(answer.body)["message"]
            )
