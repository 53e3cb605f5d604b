"""Listening for HTTP, and what aiohttp's server lacks where its peers send broken HTTP."""

import asyncio
import logging
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR, _ErrInfo

from geniehive.kit import address
from geniehive.kit.errors import UserError
from geniehive.kit.flow import hold_little_of_tls
from geniehive.kit.http_answer import Written
from geniehive.kit.outbox import Outbox

log = logging.getLogger(__name__)

_BACKLOG = 1024
# Seconds: whoever connects and then says nothing must not hold a socket for long, nor one that takes no goodbye.
_HANDSHAKE = 10.0
_GOODBYE = 1.0
# A peer whose machine is gone is noticed after half a minute, not after hours as by default. Seconds, and a count.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
# Seconds between two looks at a connection that is not read.
_LOOK = 0.05
# Linux's TCP state of a connection whose peer has ended its side.
_CLOSE_WAIT = b"\x08"

# Of an upload: read at once.
_PIECE = 48 * 1024

# Whether this aiohttp's connections work inside as ours expect; those of another version serve in their own way.
IS_KNOWN = aiohttp.__version__.startswith("3.14.")

# What aiohttp's request takes from its connection.
_OF_PROTOCOL = {
    "_transport_sslcontext": "ssl_context",
    "_transport_peername": "peername",
    "_transport_sockname": "sockname",
}

# Where aiohttp's words end and its quotation begins: of the line at fault, or of the first bytes of what is too long.
_QUOTATION = re.compile(r"\n\s*\n|[:\s]*\b(?:bytearray\()?b['\"]")


class _Request(web.BaseRequest):
    """Made in a quarter of the time: what is asked of each request is at hand, and what is not waits to be asked."""

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: StreamWriter,
        task: asyncio.Task[None] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        assert task is not None
        url = message.url
        if url.absolute:
            super().__init__(message, payload, protocol, writer, task, loop)
            return
        self._message = message
        self._protocol = protocol
        self._payload_writer = writer
        self._payload = payload
        self._task = task
        self._loop = loop
        self._rel_url = url
        self._headers = headers = message.headers
        self._method = method = message.method
        self._version = version = message.version
        self._state = {}
        self._client_max_size = self._client_max_fields = 0
        # As `under_cached_property` would fill it one by one.
        self._cache = {
            "headers": headers,
            "raw_headers": message.raw_headers,
            "method": method,
            "version": version,
            "raw_path": message.path,
            "keep_alive": not message.should_close,
            "content": payload,
        }

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_PROTOCOL:
            raise AttributeError(name)
        return getattr(self._protocol, _OF_PROTOCOL[name])


class Connection(web.RequestHandler):
    """A connection whose request body, once it turns out to be malformed, ends with `web.RequestPayloadError`.

    aiohttp by itself answers malformed HTTP only after the request before it; whoever reads the body of that request
    would wait until the peer leaves. The connection is closed after the answer.

    outbox: where its answers are written; None: nowhere but to its transport.

    Requests are served by the connection's own task, one after another: a task for each, as aiohttp makes it, costs as
    much as reading the request.
    """

    __slots__ = ("_outbox",)

    def __init__(self, manager: web.Server, *, outbox: Outbox | None = None, **options: Any) -> None:
        super().__init__(manager, **options)
        self._outbox = outbox

    async def start(self) -> None:
        if not IS_KNOWN:
            await super().start()
            return
        loop, manager, messages = self._loop, self._manager, self._messages
        handle = self._request_handler
        assert manager is not None
        assert handle is not None
        writer = StreamWriter(self, loop)
        while not self._force_close:
            if not messages:
                self._waiter = loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, payload = messages.popleft()
            if messages:
                await asyncio.sleep(0)  # who sends many at once doesn't keep others waiting
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            manager.requests_count += 1
            serve = handle
            if isinstance(message, _ErrInfo):
                serve, message = self._make_error_handler(message), ERROR
            # Not by a name: once cancelled a task holds what its names here hold, which would be itself.
            request = _Request(message, payload, self, writer, self._task_handler, loop)
            self._request_in_progress = True
            self._current_request = request
            left = False
            try:
                try:
                    answer = await serve(request)
                except Exception as error:  # noqa: BLE001  # aiohttp makes an answer of it, and tells the log
                    answer, left = await self._handle_request(request, None, partial(_fail, error))
                else:
                    if not isinstance(answer, Written) or self._upgraded:
                        answer, left = await self.finish_response(request, answer, None)
                        writer = StreamWriter(self, loop)  # it holds the state of the answer
            except ConnectionError:
                break
            except asyncio.CancelledError:
                self.force_close()
                raise
            except Exception:
                log.exception("an answer failed in a way that nothing expected")
                self.force_close()
                break
            finally:
                self._current_request = None
                self._request_in_progress = False
                if self._handler_waiter is not None and not self._handler_waiter.done():
                    self._handler_waiter.set_result(None)
                request._task = None  # type: ignore[assignment]  # else a circle, after an error
            if left:
                break
            if not payload.is_eof():
                await self._linger(payload)
            self._keepalive = bool(answer.keep_alive)
            if not self._keepalive or self._close or self._force_close:
                break
            self._next_keepalive_close_time = loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if not self._force_close:
            self._task_handler = None
            if self._outbox is not None:
                self._outbox.flush()
            if self.transport is not None:
                self.transport.close()

    async def _linger(self, payload: StreamReader) -> None:
        """Takes the rest of a body that nobody wanted, for a while: who is still sending might not see the answer."""
        try:
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof() and not self._force_close:
                    await payload.readany()
        except TimeoutError:
            self.close()
        except (ConnectionError, web.RequestPayloadError):
            self.force_close()  # it was malformed, or its sender left

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._outbox is not None:
            self._outbox.flush()  # what follows may close the connection
        return await super().finish_response(request, resp, start_time)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp asks for it at the end of each body, and then parses what is left, which is nothing.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def force_close(self) -> None:
        if self._outbox is not None and self.transport is not None:
            self._outbox.flush()
        super().force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        hold_little_of_tls(transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        queued = len(self._messages)
        super().data_received(data)
        request = self._current_request
        if request is None or len(self._messages) == queued or request.content.is_eof():
            return
        # Behind a body that has not ended nothing can come but the error that ended the parsing.
        error, _ = self._messages.pop()
        request.content.set_exception(web.RequestPayloadError(fault(getattr(error, "message", None))))
        request.content.feed_eof()  # else aiohttp would wait for the rest of it, too
        self.close()


async def _fail(error: Exception, request: web.BaseRequest) -> web.StreamResponse:
    raise error


def fault(message: str | None) -> str:
    """What aiohttp says is wrong with a request, in one line, without what it quotes: that may be a key."""
    words = _QUOTATION.split(message or "", maxsplit=1)[0]
    return " ".join(words.split())[:200] or "malformed request"


class _InPieces(asyncio.BufferedProtocol):
    """Stands before a protocol that takes whatever was read, so that this is no more than a piece at once."""

    def __init__(self, behind: asyncio.Protocol) -> None:
        self._buffer = memoryview(bytearray(_PIECE))
        self._behind = behind
        for name in ("connection_made", "connection_lost", "pause_writing", "resume_writing", "eof_received"):
            setattr(self, name, getattr(behind, name))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._behind.data_received(bytes(self._buffer[:nbytes]))


@contextmanager
def taking_upload(transport: asyncio.Transport | None) -> Iterator[None]:
    """While a body is received that may be larger than what is to be held of it.

    It comes in pieces: else uvloop reads 250 KiB at once, which only wait then. And the connection is aborted when its
    peer has left, though what the peer sent is not being read.
    """
    if transport is None:
        yield
        return
    protocol = transport.get_protocol()
    assert isinstance(protocol, asyncio.Protocol)
    transport.set_protocol(_InPieces(protocol))
    try:
        with _noticing_leavers(transport):
            yield
    finally:
        if not transport.is_closing():
            transport.set_protocol(protocol)


@contextmanager
def _noticing_leavers(transport: asyncio.Transport) -> Iterator[None]:
    """While a body is not taken the loop doesn't look at its connection, and would not learn that the peer left.

    A reset is seen everywhere; an end in order, behind what was sent, on Linux, and elsewhere once that is read.
    """
    loop = asyncio.get_running_loop()
    sock = transport.get_extra_info("socket")

    def look() -> None:
        if transport.is_closing():
            return
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or _ended(sock):
            transport.abort()
        timers[0] = loop.call_later(_LOOK, look)

    timers = [loop.call_later(_LOOK, look)]
    try:
        yield
    finally:
        timers[0].cancel()


def _ended(sock: socket.socket) -> bool:
    """Whether the peer has sent its last byte, read or not."""
    if sys.platform != "linux":
        return False
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _CLOSE_WAIT


async def listen(
    make: Callable[[], asyncio.BaseProtocol],
    where: str,
    who: str,
    advice: str,
    context: ssl.SSLContext | None = None,
    shared: bool = False,
) -> tuple[asyncio.Server, str]:
    """The server that listens on `where`, "HOST:PORT", and its URL, with the real port if 0 was asked for.

    who, advice: for the UserError if the address can't be had. context: for HTTPS. shared: with other processes.
    """
    host, port = address.split(where)
    loop = asyncio.get_running_loop()
    try:
        if context is None:
            server = await loop.create_server(make, host, port, backlog=_BACKLOG, reuse_port=shared or None)
        else:
            server = await loop.create_server(
                make,
                host,
                port,
                backlog=_BACKLOG,
                reuse_port=shared or None,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE,
                ssl_shutdown_timeout=_GOODBYE,
            )
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise UserError(f"{who} cannot listen on {where}: {reason}. {advice}") from error
    for listening in server.sockets:
        # What is set here holds for every connection; aiohttp turns keepalive itself on.
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                listening.setsockopt(socket.IPPROTO_TCP, option, value)
    bound = server.sockets[0].getsockname()
    return server, f"{'http' if context is None else 'https'}://{address.join(bound[0], bound[1])}"
