"""Lines of the access log: what stands in them, when they are written, and what is never in them."""

import asyncio
import json
import logging
import shlex
import threading

import pytest

from gateway.core.outcome import Ending, Failed, Outcome, Tokens
from gateway.http.access import AccessLog, Output
from geniehive.kit.clock import SystemClock
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import served, until
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, SECRET, Gateway
from tests.unit.gateway.http.test_calls import Engine

WHEN = 1795441112.25
PATH = "/v1/chat/completions"
PLAIN = Outcome(request_id="r-1", key_id="", operation=Operation.CHAT, model="", ending=Ending.UNSERVED, status=401)
FULL = Outcome(
    request_id="r-2", key_id="k1", operation=Operation.CHAT, model='m "x"', ending=Ending.FAILED, status=200,
    endpoint="endpoint/a/e/m", service="a/e", host="a", label="fast", attempts=2, failed=(Failed("endpoint/b", "cut"),),
    stream=True, seconds=1.23456, first=0.5, waited=0.25, tokens=Tokens(10, 5, 2),
)  # fmt: skip


class Clock(SystemClock):
    def wall(self) -> float:
        return 1795441112.25


class Kept:
    def __init__(self) -> None:
        self.data = b""
        self.threads: set[int] = set()
        self.closed = False
        self.error: OSError | None = None

    def append(self, data: bytes) -> None:
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        self.data += data

    def close(self) -> None:
        self.closed = True

    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.data.splitlines()]


async def test_json_lines() -> None:
    kept = Kept()
    log = AccessLog(kept, "json", Clock())
    log.served(PLAIN, PATH, WHEN)
    log.served(FULL, PATH, WHEN)
    log.other("r-3", "k2", "GET", "/v1/models", 200, 0.00123)
    await log.close()
    time = "2026-11-23T13:38:32.250Z"
    assert kept.objects() == [
        {"time": time, "request_id": "r-1", "method": "POST", "path": PATH, "status": 401, "ms": 0.0,
         "ending": "unserved"},
        {"time": time, "request_id": "r-2", "method": "POST", "path": PATH, "status": 200, "ms": 1234.56,
         "key_id": "k1", "ending": "failed", "model": 'm "x"', "route": "fast", "service": "a/e",
         "attempts": 2, "failed": "cut", "stream": True, "ttft_ms": 500.0, "wait_ms": 250.0, "prompt_tokens": 10,
         "cached_tokens": 2, "completion_tokens": 5},
        {"time": time, "request_id": "r-3", "method": "GET", "path": "/v1/models", "status": 200, "ms": 1.23,
         "key_id": "k2"},
    ]  # fmt: skip
    assert kept.closed
    assert threading.get_ident() not in kept.threads


async def test_text_lines_say_the_same() -> None:
    as_json, as_text = Kept(), Kept()
    for kept, form in ((as_json, "json"), (as_text, "text")):
        log = AccessLog(kept, form, Clock())  # type: ignore[arg-type]
        log.served(PLAIN, PATH, WHEN)
        log.served(FULL, PATH, WHEN)
        log.other("r-3", "k2", "GET", '/v1/"x" y', 404, 0.00123)
        log.other("r-4", "", "GET", "/" + "x" * 5000, 404, 0.0)
        await log.close()
    for line, same in zip(as_text.data.decode().splitlines(), as_json.objects(), strict=True):
        assert len(line) < 1000
        read = dict(word.partition("=")[::2] for word in shlex.split(line))
        for name, value in same.items():
            if isinstance(value, float):
                assert float(read.pop(name)) == value
            else:
                assert read.pop(name) == (str(value).lower() if isinstance(value, bool) else str(value))
        assert not read


async def test_lines_are_collected_and_written_soon() -> None:
    kept = Kept()
    log = AccessLog(kept, "json", Clock())
    task = asyncio.create_task(log.run())
    log.served(PLAIN, PATH, WHEN)
    log.served(PLAIN, PATH, WHEN)
    await asyncio.sleep(0)
    assert kept.data == b""
    await until(lambda: kept.data)
    assert len(kept.objects()) == 2
    # Many are not waited with.
    started = asyncio.get_running_loop().time()
    for _ in range(5000):
        log.served(FULL, PATH, WHEN)
    await until(lambda: len(kept.objects()) == 5002)
    assert asyncio.get_running_loop().time() - started < 0.24
    task.cancel()


async def test_what_can_not_be_written_is_lost_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    log = AccessLog(kept, "json", Clock())
    kept.error = OSError(28, "No space left on device")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.served(PLAIN, PATH, WHEN)
            await log.flush()
    assert [r.getMessage() for r in caplog.records] == [
        "cannot write the access log: [Errno 28] No space left on device; 1 lines are lost"
    ]
    kept.error = None
    log.served(PLAIN, PATH, WHEN)
    await log.flush()
    assert len(kept.objects()) == 1


async def test_a_write_that_is_under_way_at_the_end_is_waited_for() -> None:
    class Slow(Kept):
        go = threading.Event()
        at_once = 0

        def append(self, data: bytes) -> None:
            self.at_once += 1
            assert self.at_once == 1
            self.go.wait(5)
            super().append(data)
            self.at_once -= 1

    kept = Slow()
    log = AccessLog(kept, "json", Clock())
    task = asyncio.create_task(log.run())
    log.served(PLAIN, PATH, WHEN)
    await until(lambda: kept.at_once)
    log.served(PLAIN, PATH, WHEN)
    task.cancel()
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    kept.go.set()
    await closing
    assert len(kept.objects()) == 2


async def test_memory_is_bounded_when_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    log = AccessLog(kept, "json", Clock())
    for _ in range(30_000):
        log.served(FULL, PATH, WHEN)
    await log.flush()
    assert len(kept.data) < 5 << 20
    assert "lines are lost" in caplog.text


async def test_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    log = AccessLog(Output(), "json", Clock())
    log.served(PLAIN, PATH, WHEN)
    await log.close()
    assert json.loads(capfdbinary.readouterr().out)["request_id"] == "r-1"


async def test_no_secrets_and_no_prompts() -> None:
    kept = Kept()
    access = AccessLog(kept, "json", SystemClock())
    async with (
        Engine(body=b'{"answer":"secret-answer"}') as engine,
        Gateway(*served("m", a=engine.url), access=access) as gateway,
    ):
        await gateway.chat(b'{"model":"m","messages":[{"content":"secret-prompt"}]}')
        await gateway.ask("POST", CHAT_PATH + "?key=secret-query", BODY)
        await gateway.ask("GET", "/v1/models?key=secret-query")
        await gateway.ask("GET", "/nothing?key=secret-query", authorization="Bearer secret-key")
        await gateway.chat(authorization="Bearer secret-key")
        await gateway.chat(b'{"model":"secret-unknown"}')
        await gateway.ask("GET", "/healthz")
        await gateway.ask("GET", "/metrics")
        await gateway.ended(4)
        await access.flush()
        said = [(o["path"], o["status"], o.get("key_id")) for o in kept.objects()]
    assert said == [
        (PATH, 200, "k1"),
        (PATH, 200, "k1"),
        ("/v1/models", 200, "k1"),
        ("/nothing", 404, None),
        (PATH, 401, None),
        (PATH, 404, "k1"),
    ]
    assert b"secret" not in kept.data
    assert SECRET.encode() not in kept.data
