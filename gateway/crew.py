"""How the workers of one address know of one another: each has a line to their parent, which asks all of them.

The parent listens on loopback, and tells its workers by their environment where, and a secret. On a line go messages,
each behind its length. Nobody is waited for longer than a moment.
"""

import asyncio
import hmac
import itertools
import logging
import os
import secrets
import struct
from collections.abc import Callable
from contextlib import suppress

import msgspec

from gateway.core.crew import Crew, Snapshot, Whole
from geniehive.kit.tasks import Tasks

log = logging.getLogger(__name__)

# "PORT SECRET"
VARIABLE = "GENIEHIVE_GATEWAY_CREW"
_HOST = "127.0.0.1"
# Seconds: for workers to answer the parent, for the parent to answer a worker, until a line is tried anew.
ANSWER = 1.0
_WHOLE = 3.0
_AGAIN = 1.0
# For whoever connects to say who he is.
_HELLO = 5.0
_LENGTH = struct.Struct(">I")
_MOST_BYTES = 16 << 20
_MOST_HELLO = 256


class Silent(Exception):
    """The parent does not answer."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """A worker's first word. process: its own for as long as it lives."""

    secret: str
    worker: int
    process: str


class Tell(msgspec.Struct, frozen=True, tag=True):
    """The parent wants to know of this worker."""


class Told(msgspec.Struct, frozen=True, tag=True):
    snapshot: Snapshot


class Gather(msgspec.Struct, frozen=True, tag=True):
    """A worker wants to know of all. question: to be repeated with the answer."""

    question: int


class Gathered(msgspec.Struct, frozen=True, tag=True):
    question: int
    whole: Whole


_TO_PARENT = msgspec.msgpack.Decoder(Hello | Told | Gather)
_TO_WORKER = msgspec.msgpack.Decoder(Tell | Gathered)


class Parent:
    """Use `async with`; `environment` is what workers need to be told."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._crew = Crew(workers)
        self._secret = secrets.token_urlsafe(24)
        self._server: asyncio.Server | None = None
        # Of all who connected; of workers.
        self._came_by: set[asyncio.StreamWriter] = set()
        self._lines: dict[int, asyncio.StreamWriter] = {}
        # Who was asked and owes the answer: one that hangs is not asked again and again.
        self._owing: set[int] = set()
        self._open: set[_Gathering] = set()
        self._tasks = Tasks()

    async def __aenter__(self) -> "Parent":
        self._server = await asyncio.start_server(self._came, _HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._tasks.close()
        for writer in tuple(self._came_by):
            await _closed(writer)

    @property
    def environment(self) -> dict[str, str]:
        assert self._server is not None
        return {VARIABLE: f"{self._server.sockets[0].getsockname()[1]} {self._secret}"}

    async def whole(self) -> Whole:
        """What all workers count and are, as far as they say so soon."""
        asked = set(self._lines)
        gathering = _Gathering(asked)
        for worker in asked - self._owing:
            _write(self._lines[worker], Tell())
        self._owing |= asked
        self._open.add(gathering)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER):
                    await gathering.done.wait()
        finally:
            self._open.discard(gathering)
        return self._crew.whole((asked & self._lines.keys()) - gathering.missing)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._came_by.add(writer)
        self._tasks.start(self._hear(reader, writer), "hear a worker")

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = await self._admitted(reader)
            if hello is not None:
                await self._serve(hello, reader, writer)
        except (OSError, EOFError, msgspec.DecodeError):
            pass
        # Else, cancelled, whoever did that closes it.
        writer.transport.abort()
        self._came_by.discard(writer)

    async def _serve(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = hello.worker
        older = self._lines.get(worker)
        if older is not None:
            self._left(worker, older)
            older.transport.abort()
        self._lines[worker] = writer
        try:
            while True:
                match _TO_PARENT.decode(await _read(reader, _MOST_BYTES)):
                    case Told(snapshot) if self._lines.get(worker) is writer:
                        self._crew.told(worker, hello.process, snapshot)
                        self._settled(worker)
                    case Gather(question):
                        self._tasks.start(self._gather(writer, question), "ask the workers")
        finally:
            self._left(worker, writer)

    async def _admitted(self, reader: asyncio.StreamReader) -> Hello | None:
        """A worker's; None for anybody else."""
        async with asyncio.timeout(_HELLO):
            hello = _TO_PARENT.decode(await _read(reader, _MOST_HELLO))
        if not isinstance(hello, Hello) or not hmac.compare_digest(hello.secret.encode(), self._secret.encode()):
            return None
        return hello if 0 <= hello.worker < self._workers else None

    async def _gather(self, line: asyncio.StreamWriter, question: int) -> None:
        _write(line, Gathered(question, await self.whole()))

    def _left(self, worker: int, line: asyncio.StreamWriter) -> None:
        if self._lines.get(worker) is line:
            del self._lines[worker]
            self._settled(worker)

    def _settled(self, worker: int) -> None:
        """Nothing more is to come from it."""
        self._owing.discard(worker)
        for gathering in self._open:
            gathering.without(worker)


class _Gathering:
    """missing: who has not answered. done: nobody is missing."""

    __slots__ = ("done", "missing")

    def __init__(self, asked: set[int]) -> None:
        self.missing = asked.copy()
        self.done = asyncio.Event()
        self._look()

    def without(self, worker: int) -> None:
        self.missing.discard(worker)
        self._look()

    def _look(self) -> None:
        if not self.missing:
            self.done.set()


class Line:
    """A worker's own to the parent. snapshot: what the parent is told."""

    def __init__(self, worker: int, where: str, snapshot: Callable[[], Snapshot]) -> None:
        port, _, secret = where.partition(" ")
        self._port = int(port)
        self._hello = Hello(secret, worker, secrets.token_hex(8))
        self._snapshot = snapshot
        self._questions = itertools.count(1)
        self._open: dict[int, asyncio.Future[Whole]] = {}
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        """OSError."""
        self._streams = await asyncio.open_connection(_HOST, self._port)
        _write(self._streams[1], self._hello)

    async def run(self) -> None:
        """Answers the parent; connects anew if that has to be."""
        while True:
            try:
                if self._streams is None:
                    await self.connect()
                await self._serve()
            except (OSError, EOFError, msgspec.DecodeError) as error:
                log.info("the line to the other workers is gone: %s", error)
            finally:
                await self.close()
            await asyncio.sleep(_AGAIN)

    async def close(self) -> None:
        """Idempotent."""
        streams, self._streams = self._streams, None
        if streams is not None:
            await _closed(streams[1])

    async def whole(self) -> Whole:
        """Of all workers. Silent."""
        if self._streams is None:
            raise Silent("there is no line to it")
        question = next(self._questions)
        waiting: asyncio.Future[Whole] = asyncio.get_running_loop().create_future()
        self._open[question] = waiting
        try:
            _write(self._streams[1], Gather(question))
            async with asyncio.timeout(_WHOLE):
                return await waiting
        except TimeoutError:
            raise Silent(f"it said nothing for {_WHOLE:g} s") from None
        finally:
            del self._open[question]

    async def _serve(self) -> None:
        assert self._streams is not None
        reader, writer = self._streams
        while True:
            match _TO_WORKER.decode(await _read(reader, _MOST_BYTES)):
                case Tell():
                    _write(writer, Told(self._snapshot()))
                case Gathered(question, whole):
                    waiting = self._open.get(question)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(whole)


def line_of(worker: int | None, snapshot: Callable[[], Snapshot]) -> Line | None:
    """The line of this process; None if it has no parent to have one to."""
    where = os.environ.get(VARIABLE)
    return None if worker is None or where is None else Line(worker, where, snapshot)


def _write(line: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    if not line.transport.is_closing():
        line.write(framed(message))


async def _closed(line: asyncio.StreamWriter) -> None:
    line.transport.abort()
    with suppress(OSError):
        await line.wait_closed()


def framed(message: msgspec.Struct) -> bytes:
    data = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(data)) + data


async def _read(line: asyncio.StreamReader, most: int) -> bytes:
    """OSError, EOFError."""
    (length,) = _LENGTH.unpack(await line.readexactly(_LENGTH.size))
    if length > most:
        raise EOFError(f"{length} bytes are no message")
    return await line.readexactly(length)
