"""The answer to one request at aiohttp's server, written by hand.

It goes to the transport directly, a whole one in one piece with its head and a stream as one write for what one read
brought: aiohttp's own response objects cost as much as all the rest of a request.
"""

import asyncio
from typing import Any

from aiohttp import web

from geniehive.kit.http_head import EMPTY_STATUSES, status_line
from geniehive.kit.outbox import Outbox

_CLOSE = b"connection: close\r\n"


class Written(web.StreamResponse):
    """Tells aiohttp that the answer has been written, and whether the connection may be used further."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> Any:
        return None

    async def write_eof(self, data: bytes | bytearray | memoryview = b"") -> None:
        return None


KEEP = Written(True)
CLOSE = Written(False)


class Answer:
    """common: lines of every head. keep_alive: whether the connection may be used further if the client wants to.
    client_idle: seconds that the client may take nothing; None for no limit. outbox: where what is small is written;
    without one it leaves at once.
    """

    __slots__ = (
        "_chunked",
        "_client_idle",
        "_common",
        "_head_only",
        "_keep",
        "_outbox",
        "_request",
        "started",
        "status",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        common: bytes = b"",
        keep_alive: bool = True,
        client_idle: float | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        # Bytes of the answer have been written.
        self.started = False
        # That it has; 0 before.
        self.status = 0
        self._request = request
        self._common = common
        self._keep = keep_alive and request.keep_alive and request.version[1] != 0
        self._client_idle = client_idle
        self._outbox = outbox
        self._chunked = False
        self._head_only = request.method == "HEAD"

    @property
    def result(self) -> web.StreamResponse:
        """What the handler gives back to aiohttp."""
        return KEEP if self._keep else CLOSE

    def whole(self, status: int, headers: bytes, body: bytes) -> None:
        """A whole answer in one write. `headers`: lines beside length and the common ones."""
        length = b"" if status in EMPTY_STATUSES else b"content-length: %d\r\n" % len(body)
        head = self._head(status, headers, length)
        self._write(head if self._head_only or not length else head + body)
        self.status = status

    def begin(self, status: int, headers: bytes, length: int | None, first: bytes = b"") -> None:
        """The head of an answer that comes in pieces, and the first of them; length None: not known before its end."""
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self._request.version[1] == 0:
            framing = b""  # the end of the connection is the end of the answer
        else:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        self._write(self._head(status, headers, framing) + self._framed(first))
        self.status = status

    async def send(self, data: bytes) -> None:
        """One more piece; waits while the client takes too little. ConnectionError once the client is gone."""
        self._write(self._framed(data))
        if self._request.protocol.writing_paused:
            await self._drained()

    def end(self, last: bytes = b"") -> None:
        """The last piece."""
        self._write(self._framed(last) + b"0\r\n\r\n" if self._chunked else last)

    def close_after(self) -> None:
        """The connection must not be used after this answer."""
        self._keep = False

    def abort(self) -> None:
        """Breaks the connection, so that the client sees that the answer is not whole."""
        self._keep = False
        if self._outbox is not None:
            self._outbox.flush()  # what was sent before is still for the client
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    @property
    def alive(self) -> bool:
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    def _head(self, status: int, headers: bytes, framing: bytes) -> bytes:
        return b"%b%b%b%b%b\r\n" % (
            status_line(status),
            headers,
            self._common,
            framing,
            b"" if self._keep else _CLOSE,
        )

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def _write(self, data: bytes) -> None:
        self.started = True
        if data:
            self._put(data)

    def _put(self, data: bytes) -> None:
        if self._outbox is None:
            self._transport().write(data)
        else:
            self._outbox.write(self._transport(), data)

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        return transport

    async def _drained(self) -> None:
        try:
            async with asyncio.timeout(self._client_idle):
                await self._request.writer.drain()
        except TimeoutError:
            self.abort()
            raise ConnectionResetError("the client took nothing for too long") from None
