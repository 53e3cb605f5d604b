"""Forms with files on their way to an engine: streamed through, or kept on the disk until their model is known.

A small form is held whole. Of a larger one no more than a piece or two is in memory: if its model stands near its
beginning, it goes straight on to the engine, and once more of it has been taken from the client it can't be sent again;
else it is kept in a temporary file to its end, and can be.

The disk is read and written by threads of its own: one that hangs holds nobody but those who wait for it.
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import IO, Any, TypeVar

from gateway.core import errors, multipart
from gateway.core.multipart import FormProblem, Scanner
from gateway.http.call import Content
from gateway.http.exchange import Exchange, Refusal
from geniehive.kit.http1 import Measured

log = logging.getLogger(__name__)

# A form up to this size is held in memory; what comes before the model in one that is streamed, too.
_HELD = 256 * 1024
# Bytes of one read or write of the disk: large enough that the thread's part is small.
_BLOCK = 256 * 1024
_THREADS = 4

_Given = TypeVar("_Given")


class Forms:
    """Receives them. limit: bytes of one. folder: for temporary files; None: the system's."""

    def __init__(self, limit: int, folder: str | None = None) -> None:
        self._limit = limit
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, "uploads")

    def close(self) -> None:
        """What a thread is doing it still ends."""
        self._threads.shutdown(wait=False)

    @asynccontextmanager
    async def receive(self, exchange: Exchange) -> AsyncIterator[Content]:
        """The form of a request, while it lasts. Refusal if it can't be used."""
        try:
            boundary = multipart.boundary(exchange.content_type)
        except FormProblem as problem:
            raise _refusal(problem) from None
        length = exchange.begin_body(self._limit, "max_upload_bytes")
        upload = _Upload(exchange, Scanner(boundary), boundary, self._limit)
        with exchange.taking_upload():
            if length is None or length > _HELD:
                await upload.take(lambda: upload.model is not None)
            else:
                await upload.take(lambda: False)
            if exchange.body_read:
                upload.finish()
                yield _Held(upload, b"".join(upload.pieces))
            elif upload.model is not None:
                yield _Streamed(upload, length)
            else:
                kept = _Kept(upload, _Spool(self._threads, self._folder))
                try:
                    await kept.fill()
                    yield kept
                finally:
                    kept.spool.close()


class _Upload:
    """The body as it comes from the client, scanned and counted."""

    __slots__ = ("_boundary", "_exchange", "_limit", "_scanner", "pieces", "size")

    def __init__(self, exchange: Exchange, scanner: Scanner, boundary: bytes, limit: int) -> None:
        # What was taken and has not gone elsewhere.
        self.pieces: list[bytes] = []
        # What was read.
        self.size = 0
        self._exchange = exchange
        self._scanner = scanner
        self._boundary = boundary
        self._limit = limit

    @property
    def model(self) -> multipart.Field | None:
        return self._scanner.model

    @property
    def named_again(self) -> bool:
        """Whether `model_name` is there."""
        return self._scanner.model_name is not None

    async def take(self, enough: Callable[[], bool]) -> None:
        """Reads into `pieces` until that is enough, or more than may be held, or all."""
        while self.size <= _HELD and not enough() and not self.at_end:
            self.pieces.append(await self.read())

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Refusal for what can't be passed on."""
        piece = await self._exchange.piece()
        self.size += len(piece)
        if self.size > self._limit:
            raise Refusal(errors.too_large(self._limit, "max_upload_bytes"))
        try:
            self._scanner.feed(piece)
        except FormProblem as problem:
            raise _refusal(problem) from None
        if self.at_end:
            self.finish()
        return piece

    @property
    def at_end(self) -> bool:
        return self._exchange.body_read

    def finish(self) -> None:
        """The body is whole. Refusal if the form is not."""
        try:
            self._scanner.finish()
        except FormProblem as problem:
            raise _refusal(problem) from None

    def cut(self, model: str, also_named: bool, size: int) -> list[bytes | range]:
        """So many bytes of the body, with another model."""
        assert self.model is not None
        known = self._scanner.model_name
        return multipart.cut(multipart.edits(self._boundary, self.model, known, model, also_named), size)


class _Held:
    """A form that is in memory."""

    __slots__ = ("_body", "_upload", "model")
    replayable = True

    def __init__(self, upload: _Upload, body: bytes) -> None:
        assert upload.model is not None
        self.model = upload.model.value
        self._upload = upload
        self._body = body

    def renamed(self, model: str, also_named: bool) -> bytes:
        pieces = self._upload.cut(model, also_named, len(self._body))
        return _joined(pieces, self._body)


class _Streamed:
    """A form whose rest is still at the client. length: None if that is not known."""

    __slots__ = ("_begun", "_length", "_upload", "model")

    def __init__(self, upload: _Upload, length: int | None) -> None:
        assert upload.model is not None
        self.model = upload.model.value
        self._upload = upload
        self._length = length
        self._begun = False

    @property
    def replayable(self) -> bool:
        return not self._begun

    def renamed(self, model: str, also_named: bool) -> AsyncIterable[bytes]:
        upload = self._upload
        first = b"".join(upload.pieces)
        new = _joined(upload.cut(model, also_named, len(first)), first)
        pieces = self._pieces(new, also_named and not upload.named_again)
        return pieces if self._length is None else Measured(pieces, self._length + len(new) - len(first))

    async def _pieces(self, first: bytes, added: bool) -> AsyncIterator[bytes]:
        """added: `model_name` is among `first` though the client has not sent it."""
        upload = self._upload
        yield first
        first = b""
        while not upload.at_end:
            piece = await upload.read()
            if not self._begun:
                self._begun = True
                upload.pieces.clear()
            if added and upload.named_again:
                message = '"model_name" comes after "model" in the form. Leave it out: "model" is enough'
                raise Refusal(errors.bad_request(message, multipart.MODEL_NAME))
            if piece:
                yield piece


class _Kept:
    """A form that is in a file."""

    __slots__ = ("_upload", "spool")
    replayable = True

    def __init__(self, upload: _Upload, spool: "_Spool") -> None:
        self.spool = spool
        self._upload = upload

    @property
    def model(self) -> str:
        assert self._upload.model is not None
        return self._upload.model.value

    async def fill(self) -> None:
        """All of the body. Refusal if it, or the disk, is not fit for it."""
        upload = self._upload
        waiting, size = upload.pieces, sum(map(len, upload.pieces))
        while True:
            ended = upload.at_end
            if size >= _BLOCK or (ended and size):
                block = b"".join(waiting)
                waiting.clear()
                size = 0
                await self._disk(self.spool.write(block))
                del block
            if ended:
                return
            piece = await upload.read()
            waiting.append(piece)
            size += len(piece)

    def renamed(self, model: str, also_named: bool) -> Measured:
        pieces = self._upload.cut(model, also_named, self._upload.size)
        return Measured(self._pieces(pieces), multipart.length(pieces))

    async def _pieces(self, pieces: list[bytes | range]) -> AsyncIterator[bytes]:
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            for start in range(piece.start, piece.stop, _BLOCK):
                yield await self._disk(self.spool.read(start, min(_BLOCK, piece.stop - start)))

    async def _disk(self, work: Awaitable[_Given]) -> _Given:
        try:
            return await work
        except OSError as error:
            log.error("an upload can't be kept in %s: %s", self.spool.place, error)
            raise Refusal(errors.no_room()) from error


class _Spool:
    """A temporary file without a name, used by one thread at a time."""

    __slots__ = ("_closed", "_file", "_folder", "_threads", "_work")

    def __init__(self, threads: ThreadPoolExecutor, folder: str | None) -> None:
        self._threads = threads
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._work: asyncio.Future[Any] | None = None
        self._closed = False

    @property
    def place(self) -> str:
        if self._folder is not None:
            return self._folder
        try:
            return tempfile.gettempdir()
        except OSError:
            return "a temporary folder"

    async def write(self, data: bytes) -> None:
        """Behind what was written. OSError."""
        await self._do(lambda: self._write(data))

    async def read(self, start: int, size: int) -> bytes:
        """OSError."""
        return await self._do(lambda: self._read(start, size))

    def close(self) -> None:
        """The file is gone, as soon as a thread that is at it is done. Idempotent."""
        self._closed = True
        if self._work is None and self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):
                file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder, prefix="geniehive-")  # noqa: SIM115 - it outlives this
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _read(self, start: int, size: int) -> bytes:
        assert self._file is not None
        self._file.seek(start)
        found = self._file.read(size)
        if len(found) != size:
            raise OSError(f"{size - len(found)} bytes are missing at {start}")
        return found

    async def _do(self, work: Callable[[], _Given]) -> _Given:
        while self._work is not None:
            # Of one who was cancelled.
            await asyncio.wait([self._work])
        doing = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._work = doing
        doing.add_done_callback(self._done)
        # Cancelling must not take the file from under the thread.
        return await asyncio.shield(doing)

    def _done(self, doing: asyncio.Future[_Given]) -> None:
        self._work = None
        if self._closed:
            self.close()


def _joined(pieces: list[bytes | range], body: bytes) -> bytes:
    return b"".join(p if isinstance(p, bytes) else body[p.start : p.stop] for p in pieces)


def _refusal(problem: FormProblem) -> Refusal:
    return Refusal(errors.bad_request(problem.message, problem.param or None))
