"""Listening for HTTP, and what aiohttp's server lacks where its peers send broken HTTP."""

import asyncio
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from geniehive.kit import address
from geniehive.kit.errors import UserError

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

# Where aiohttp's words end and its quotation begins: of the line at fault, or of the first bytes of what is too long.
_QUOTATION = re.compile(r"\n\s*\n|[:\s]*\b(?:bytearray\()?b['\"]")


class Connection(web.RequestHandler):
    """A connection whose request body, once it turns out to be malformed, ends with `web.RequestPayloadError`.

    aiohttp by itself answers malformed HTTP only after the request before it; whoever reads the body of that request
    would wait until the peer leaves. The connection is closed after the answer.
    """

    __slots__ = ()

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


def fault(message: str | None) -> str:
    """What aiohttp says is wrong with a request, in one line, without what it quotes: that may be a key."""
    words = _QUOTATION.split(message or "", maxsplit=1)[0]
    return " ".join(words.split())[:200] or "malformed request"


@contextmanager
def noticing_leavers(transport: asyncio.Transport | None) -> Iterator[None]:
    """Aborts the connection when its peer has left, though what the peer sent is not being read.

    While a body is not taken further the loop doesn't look at its connection, and would not learn that the peer left.
    A reset is seen everywhere; an end in order, behind what was sent, on Linux, and elsewhere once that is read.
    """
    if transport is None:
        yield
        return
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
