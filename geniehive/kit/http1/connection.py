"""One connection to an upstream; one answer at a time.

A connection is *at rest* (`complete`, nothing asked) or has an answer under way. `send` starts one; the parser's
callbacks fill it; whoever awaits is woken once, when what he waits for is there. One timer per connection serves
all limits: it is armed only when the next limit is nearer than the timer, and looks at the clock when it fires, so that
a stream of tokens costs no timer at all.
"""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, cast

import httptools

from geniehive.kit import flow, tls_probe
from geniehive.kit.http1.errors import (
    ConnectFailed,
    ConnectionLost,
    FirstByteTimeout,
    HttpError,
    IdleTimeout,
    ProtocolError,
    TotalTimeout,
    Truncated,
)
from geniehive.kit.http1.framing import ends_with_connection, head_size
from geniehive.kit.http1.limits import DEFAULT_TIMEOUTS, HEAD_LIMIT, PAUSE_AT, WRITE_JOIN_LIMIT, Timeouts
from geniehive.kit.http1.origin import Origin
from geniehive.kit.outbox import Outbox

_TICK = 0.002  # seconds; event loops round timers, so a limit this near has passed


class Connection(asyncio.BufferedProtocol):
    """Made by the client, handed to `create_connection`. `forget` is called once it can't be used any more.

    buffer: what the loop reads into, READ_SIZE at once. Nothing stays there: all connections of a loop may share it.
    """

    __slots__ = (
        "_buffer", "_bulky", "_deadline", "_drained", "_forget", "_head_bytes", "_head_only", "_idle_words", "_loop",
        "_out_of_time", "_outbox", "_parser", "_parts", "_paused", "_quiet_bytes", "_size", "_timeouts", "_timer",
        "_timer_at", "_total_at", "_transport", "_used", "_waiter", "_wake_at", "_writing_paused", "answered",
        "complete", "error", "head_done", "headers", "keep", "origin", "resting", "status",
    )  # fmt: skip

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        buffer: memoryview,
        forget: Callable[["Connection"], None],
        outbox: Outbox | None = None,
    ) -> None:
        self.origin = origin
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_done = False
        self.complete = True  # no answer is under way
        self.keep = True  # after this answer another request may be sent
        self.answered = False  # some byte of the answer has arrived
        self.resting = False  # in the pool
        self.error: BaseException | None = None
        self._loop = loop
        self._buffer = buffer
        self._outbox = outbox
        self._forget = forget
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._head_only = False
        self._head_bytes = 0
        self._quiet_bytes = 0
        self._paused = False
        self._writing_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._wake_at = 0
        self._used = False  # an answer came whole
        self._bulky = False  # more was asked than a server takes without looking at it
        self._timeouts = DEFAULT_TIMEOUTS
        self._idle_words = ""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._deadline = inf
        self._total_at = inf
        self._out_of_time: type[FirstByteTimeout | IdleTimeout] = FirstByteTimeout

    # What the client does with it.

    @property
    def usable(self) -> bool:
        """May a request be sent on it?"""
        return self._transport is not None and self.keep and not self._transport.is_closing()

    @property
    def closed(self) -> bool:
        """Has the socket been closed, or was there never one?"""
        return self._transport is None

    @property
    def peer_certificate(self) -> Mapping[str, Any] | None:
        """As `ssl.SSLSocket.getpeercert` gives it; None without TLS, or without a connection."""
        return None if self._transport is None else self._transport.get_extra_info("peercert")

    def send(self, head: bytes, body: bytes | None, head_only: bool, timeouts: Timeouts, total_at: float) -> None:
        """Starts an answer. `head_only`: an answer to HEAD, which has no body whatever it says.

        `total_at` is in the loop's time. The caller has made sure that it is `usable`.
        """
        assert self._transport is not None
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers = []
        self.head_done = self.complete = self.answered = self.resting = False
        self._head_only = head_only
        self._head_bytes = self._quiet_bytes = 0
        self._bulky = False
        self._timeouts = timeouts
        self._idle_words = ""
        self._total_at = total_at
        self._deadline = inf
        if total_at < self._timer_at:
            self._arm(total_at)
        if not body:
            self._transport.write(head)
        elif len(body) <= WRITE_JOIN_LIMIT:
            if self._outbox is None:
                self._transport.write(head + body)
            else:
                self._outbox.write(self._transport, head + body)
        else:
            self._bulky = True
            self._transport.write(head)
            self._transport.write(body)

    def rest(self, seconds: float) -> bool:
        """Keeps the connection for another request, for so many seconds; False when it can't be kept."""
        transport = self._transport
        if (
            not (self.complete and self.keep)
            or transport is None
            or transport.is_closing()
            # An early answer: the server has not taken the request yet and would take the rest for the next one.
            or transport.get_write_buffer_size()
        ):
            return False
        self._drop_body()
        self._total_at = inf
        self.resting = self._used = True
        self._limit(seconds)
        return True

    def abort(self) -> None:
        """Closes the socket at once, without waiting for anything; idempotent."""
        self.fail(self._lost_error("was aborted"))

    def distrust(self, why: str) -> None:
        """Closes the socket at once: the server is no longer to be spoken to."""
        self.fail(self._lost_error(f"was left ({why})"))

    def fail(self, error: BaseException) -> None:
        """Ends the answer under way with `error` and closes the socket."""
        self.keep = False
        if not self.complete and self.error is None:
            self.error = error
        if self._transport is not None:
            if self._bulky and not self.head_done and not self.complete:
                _reset_at_close(self._transport)
            self._transport.abort()
        self._gone()

    # What the request and the response await.

    async def wait_head(self, *, limited: bool = True) -> None:
        """Until the head is complete; raises what prevented it. Without `limited` the sender sets the limits."""
        if not self.head_done and self.error is None:
            if limited:
                self.limit_first_byte()
            self._wake_at = 0
            self._waiter = self._loop.create_future()
            await self._waiter
        if not self.head_done and self.error is not None:
            raise self.error

    async def wait_body(self, size: int) -> None:
        """Until `size` unread bytes, the end or an error; the caller looks which."""
        if self._size >= size or self.complete or self.error is not None:
            return
        self._limit_idle()
        self._wake_at = size
        self._waiter = self._loop.create_future()
        await self._waiter

    def limit_silence(self, seconds: float, since: str) -> None:
        """Of the answer under way: a nearer limit for silence than it was asked with, and since when, for people."""
        idle = self._timeouts.idle
        if not self.complete and (idle is None or seconds < idle):
            self._timeouts = replace(self._timeouts, idle=seconds)
            self._idle_words = f" {since}"
            if self.head_done and self._waiter is not None:
                self._limit_idle()

    async def wait_drained(self) -> None:
        """Until the server has taken most of what was written; returns also when the connection is gone."""
        if self._writing_paused and self._transport is not None and self.error is None:
            self._limit_idle()
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None
                self._deadline = inf

    def write(self, data: list[bytes]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._bulky = True
            # Not writelines: from Python 3.12 on asyncio's own never tells us to pause.
            self._transport.write(b"".join(data))

    def hold_little(self) -> None:
        """From now on `wait_drained` waits for the server to take nearly all."""
        if self._transport is not None:
            flow.hold_little(self._transport)

    def take(self) -> bytes:
        """All unread bytes; lets the socket be read again."""
        parts = self._parts
        if len(parts) == 1:
            taken = parts[0]
        elif parts:
            taken = b"".join(parts)
        else:
            return b""
        self._drop_body()
        return taken

    def _drop_body(self) -> None:
        self._parts = []
        self._size = 0
        if self._paused:
            self._paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # TCP_NODELAY needs no word here: asyncio and uvloop both set it on every TCP socket.
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        if self.origin.scheme == "https":
            flow.hold_little(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        # A buffer of ours, because uvloop would else take 250 KiB at once: more than should wait for a slow client.
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.complete:
            # Nothing was asked, or more came than the answer: whatever it is, the next answer can't be trusted.
            self.keep = False
            if self._transport is not None:
                self._transport.abort()
            self._gone()
            return
        if self._parser is not None and self.error is None:  # else aborted, and the loop had read this already
            self._take_in(self._parser, self._buffer[:nbytes])

    def _take_in(self, parser: httptools.HttpResponseParser, data: memoryview) -> None:
        before = self._size
        in_head = not self.head_done
        self.answered = True
        try:
            if self._head_only:
                self._feed_head(parser, data)
            else:
                parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            self.keep = False
            if not self.complete:
                self.fail(self.error or ProtocolError(f"{self.origin} sent a malformed answer: {problem}", sent=True))
                return
        if in_head and not self._head_fits(len(data)):
            self.head_done = self.complete = False  # it may have come whole, with all its body
            self.fail(ProtocolError(f"{self.origin} sent a response head over {HEAD_LIMIT} bytes", sent=True))
            return
        if self.error is not None:
            self.fail(self.error)
            return
        if self._size != before:
            self._quiet_bytes = 0
            if self._size >= PAUSE_AT and not self._paused and not self.complete and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        elif not in_head and not self.complete:
            self._quiet_bytes += len(data)
            if self._quiet_bytes > HEAD_LIMIT:
                self.fail(ProtocolError(f"{self.origin} sent endless trailers or chunk extensions", sent=True))
                return
        if self._waiter is not None and self.head_done:
            if self.complete or self._size >= self._wake_at:
                self._wake()
            else:
                self._limit_idle()

    def eof_received(self) -> bool:
        self._ended(None)
        if self._transport is not None:
            self._transport.abort()  # a close would first wait for the server to take the rest of the request
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._transport = None
        self._parser = None  # it holds our callbacks: a cycle that only the collector would free
        self._gone()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete:
            self.keep = False  # a second answer in the same read

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:  # else a trailer
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status == 101:
            self.error = ProtocolError(f"{self.origin} switched the protocol (101), which nobody asked for", sent=True)
        elif status < 200:
            self.headers = []
        else:
            self.status = status
            self.head_done = True
            if self._head_only:
                self.complete = True
                self.keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self._parts.append(data)
            self._size += len(data)

    def on_message_complete(self) -> None:
        if self.head_done and not self.complete and self._parser is not None:
            self.complete = True
            self.keep = self._parser.should_keep_alive()

    def _feed_head(self, parser: httptools.HttpResponseParser, data: memoryview) -> None:
        # The parser can't be told that an answer to HEAD has no body. So it gets single bytes until the head is
        # complete; what follows it is then exactly known, and the parser, waiting for a body, is not used again.
        for at in range(len(data)):
            parser.feed_data(data[at : at + 1])
            if self.complete:
                self._parser = None
                if at + 1 < len(data):
                    self.keep = False
                return

    def _head_fits(self, arrived: int) -> bool:
        self._head_bytes += arrived
        if self._head_bytes <= HEAD_LIMIT:
            return True
        return self.head_done and head_size(self.headers) <= HEAD_LIMIT

    # Ends and limits.

    def _ended(self, exc: Exception | None) -> None:
        if not self.complete and self.error is None:
            if self.head_done and exc is None and ends_with_connection(self.headers):
                self.complete = True
            else:
                self.error = self._ended_error(exc)
        self.keep = False
        self._gone()

    def _ended_error(self, exc: Exception | None) -> HttpError:
        said = tls_probe.words(exc) if isinstance(exc, ssl.SSLError) else str(exc or "")
        if not self._used and not self.answered:
            # In TLS 1.3 a server judges our certificate when the handshake is over for us; it has read nothing else.
            if isinstance(exc, ssl.SSLError):
                return ConnectFailed(f"{self.origin} can't be reached: {said}", sent=False)
            if self._was_not_admitted():
                return ConnectFailed(f"{self.origin} did not let us in; does it accept our certificate?", sent=False)
        return self._lost_error(f"closed the connection{f' ({said})' if said else ''}")

    def _was_not_admitted(self) -> bool:
        """Whether a server that gives out session tickets, as ours do, ended before it gave one."""
        if self.origin.tls_name is None or self._transport is None:
            return False
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None or tls.version() != "TLSv1.3":
            return False
        session = tls.session
        return session is None or not session.has_ticket

    def _lost_error(self, what: str) -> HttpError:
        if self.head_done:
            return Truncated(f"{self.origin} {what} in the middle of its answer", sent=True)
        return ConnectionLost(f"{self.origin} {what} before it answered", sent=True)

    def _gone(self) -> None:
        self.resting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = inf
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._wake()
        self._forget(self)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def limit_first_byte(self) -> None:
        self._out_of_time = FirstByteTimeout
        self._limit(self._timeouts.first_byte)

    def _limit_idle(self) -> None:
        self._out_of_time = IdleTimeout
        self._limit(self._timeouts.idle)

    def _limit(self, seconds: float | None) -> None:
        if seconds is None:
            self._deadline = inf
            return
        self._deadline = at = self._loop.time() + seconds
        if at < self._timer_at:
            self._arm(at)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)
        self._timer_at = at

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = inf
        waiting = self._waiter is not None or self._drained is not None or self.resting
        deadline = self._deadline if waiting else inf
        total_at = inf if self.complete else self._total_at
        now = self._loop.time() + _TICK
        if now < deadline and now < total_at:
            at = min(deadline, total_at)
            if at < inf:
                self._arm(at)
        elif self.resting:
            self.abort()
        elif now >= total_at:
            self.fail(TotalTimeout(f"{self.origin} did not finish within {self._timeouts.total:g} s", sent=True))
        elif self._out_of_time is FirstByteTimeout:
            self.fail(
                FirstByteTimeout(f"{self.origin} did not answer within {self._timeouts.first_byte:g} s", sent=True)
            )
        elif self._drained is not None:
            self.fail(IdleTimeout(f"{self.origin} took nothing for {self._idle()}", sent=True))
        else:
            self.fail(IdleTimeout(f"{self.origin} sent nothing for {self._idle()}", sent=True))

    def _idle(self) -> str:
        return f"{self._timeouts.idle:g} s{self._idle_words}"


def _reset_at_close(transport: asyncio.Transport) -> None:
    """A server that takes nothing of a request at present would see an end only behind all that was sent."""
    sock = transport.get_extra_info("socket")
    try:
        # No seconds to linger; the layout is the system's.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
    except OSError:
        pass  # it is closed already
