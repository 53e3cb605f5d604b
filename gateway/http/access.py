"""The access log: one line per request, without prompts, answers and keys, of which only the id is told.

Lines are collected and written several times a second by one task, so that a request waits for no disk.
"""

import asyncio
import logging
import sys
import time
from functools import lru_cache
from typing import Literal, Protocol

import msgspec

from gateway.core.outcome import Ending, Outcome
from geniehive.kit.clock import Clock

log = logging.getLogger(__name__)

# Seconds from a line until it is written, unless so many bytes are there before.
_SOON = 0.25
_AT_ONCE = 1 << 20
# Of what could not be written yet; more lines than that are lost.
_WAITING_LIMIT = 4 << 20
# Seconds until a failure that goes on is told again.
_SAY_AGAIN = 60.0
_SHOWN = 256
_MILLISECONDS = tuple(f"{n:03d}Z" for n in range(1000))


class Sink(Protocol):
    def append(self, data: bytes) -> None:
        """OSError if that fails."""

    def close(self) -> None: ...


class Output:
    """Standard output, for whoever collects it."""

    def append(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        pass


class _Line(msgspec.Struct, gc=False, omit_defaults=True):
    """ms: from the request's head to the end of its answer; ttft_ms: to the first byte of the engine's answer."""

    time: str
    request_id: str
    method: str
    path: str
    status: int
    ms: float
    key_id: str = ""
    ending: str = ""
    model: str = ""
    route: str = ""
    service: str = ""
    attempts: int = 0
    failed: str = ""
    stream: bool = False
    ttft_ms: float | None = None
    wait_ms: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


_encode = msgspec.json.Encoder().encode


class AccessLog:
    """form: "json", one object a line; or "text", the same as KEY=VALUE."""

    def __init__(self, sink: Sink, form: Literal["text", "json"], clock: Clock) -> None:
        self._sink = sink
        self._json = form == "json"
        self._clock = clock
        self._lines: list[bytes] = []
        self._size = 0
        self._lost = 0
        self._told = 0.0
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._second = 0, ""
        # What is being written, by a thread.
        self._writing: asyncio.Future[OSError | None] | None = None

    def served(self, outcome: Outcome, path: str, at: float) -> None:
        """A call to a model has ended. at: in seconds since the epoch."""
        when = self._time(at)
        self._take(_json(outcome, when, path) if self._json else _text(outcome, when, path))

    def other(self, request_id: str, key_id: str, method: str, path: str, status: int, seconds: float) -> None:
        """A request that asked no model has ended."""
        method, path = method[:_SHOWN], path[:_SHOWN]
        ms, when = round(seconds * 1e3, 2), self._time(self._clock.wall())
        if self._json:
            line = _encode(_Line(when, request_id, method, path, status, ms, key_id)) + b"\n"
        else:
            key = f" key_id={key_id}" if key_id else ""
            line = (
                f"time={when} request_id={request_id} method={_word(method)} path={_word(path)} "
                f"status={status} ms={ms}{key}\n"
            ).encode()
        self._take(line)

    async def run(self) -> None:
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(_SOON):
                    await self._many.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """Writes what is there. What can't be written is lost, and that is told in the log."""
        self._some.clear()
        self._many.clear()
        if self._writing is not None:
            # Whoever waited for it was cancelled, and it goes on.
            await asyncio.wait([self._writing])
        lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._append, b"".join(lines))
        error = await asyncio.shield(self._writing)
        self._writing = None
        if error is not None:
            self._lost += len(lines)
            self._tell(f"cannot write the access log: {error}")
        elif self._lost:
            self._tell("the access log is written more slowly than requests come")

    async def close(self) -> None:
        await self.flush()
        await asyncio.to_thread(self._sink.close)

    def _append(self, data: bytes) -> OSError | None:
        try:
            self._sink.append(data)
        except OSError as error:
            return error
        return None

    def _take(self, line: bytes) -> None:
        if self._size > _WAITING_LIMIT:
            self._lost += 1
            return
        if not self._lines:
            self._some.set()
        self._lines.append(line)
        self._size += len(line)
        if self._size > _AT_ONCE:
            self._many.set()

    def _time(self, at: float) -> str:
        second = int(at)
        known, text = self._second
        if second != known:
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second, text
        return text + _MILLISECONDS[int((at - second) * 1000)]

    def _tell(self, why: str) -> None:
        now = self._clock.now()
        if not self._told or now > self._told + _SAY_AGAIN:
            self._told = now
            log.warning("%s; %d lines are lost", why, self._lost)
            self._lost = 0


def _json(outcome: Outcome, when: str, path: str) -> bytes:
    line = _Line(
        when, outcome.request_id, "POST", path, outcome.status, round(outcome.seconds * 1e3, 2), outcome.key_id,
        outcome.ending._value_, outcome.model, outcome.label, outcome.service, outcome.attempts,
    )  # fmt: skip
    if outcome.failed:
        line.failed = _kinds(outcome)
    if outcome.stream:
        line.stream = True
    if (first := outcome.first) is not None:
        line.ttft_ms = round(first * 1e3, 2)
    if outcome.waited:
        line.wait_ms = round(outcome.waited * 1e3, 2)
    if (tokens := outcome.tokens) is not None:
        line.prompt_tokens = tokens.prompt
        line.completion_tokens = tokens.completion
        if tokens.cached:
            line.cached_tokens = tokens.cached
    return _encode(line) + b"\n"


def _text(outcome: Outcome, when: str, path: str) -> bytes:
    said = _same(
        path, outcome.status, outcome.ending, outcome.key_id, outcome.model, outcome.label, outcome.service,
        outcome.attempts, outcome.stream,
    )  # fmt: skip
    line = f"time={when} request_id={outcome.request_id} {said} ms={outcome.seconds * 1e3:.2f}"
    if (first := outcome.first) is not None:
        line += f" ttft_ms={first * 1e3:.2f}"
    if (tokens := outcome.tokens) is not None:
        line += f" prompt_tokens={tokens.prompt} completion_tokens={tokens.completion}"
        if tokens.cached:
            line += f" cached_tokens={tokens.cached}"
    if outcome.waited:
        line += f" wait_ms={outcome.waited * 1e3:.2f}"
    if outcome.failed:
        line += f" failed={_kinds(outcome)}"
    return line.encode() + b"\n"


@lru_cache(maxsize=1024)
def _same(
    path: str, status: int, ending: Ending, key_id: str, model: str, label: str, service: str, attempts: int,
    stream: bool,
) -> str:  # fmt: skip
    """What many lines have alike."""
    said = f"method=POST path={path} status={status} ending={ending._value_}"
    if key_id:
        said += f" key_id={key_id}"
    if model:
        said += f" model={_word(model)}"
    if attempts:
        said += f" route={_word(label)} service={_word(service)} attempts={attempts}"
    return said + " stream=true" if stream else said


def _kinds(outcome: Outcome) -> str:
    return ",".join([failed.kind for failed in outcome.failed])


@lru_cache(maxsize=4096)
def _word(text: str) -> str:
    """Quoted where a reader could take it for something else."""
    if text.isprintable() and text and not any(c in text for c in ' "='):
        return text
    return msgspec.json.encode(text).decode()
