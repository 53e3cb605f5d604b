"""The pool of connections and the sending of requests."""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from math import inf
from types import TracebackType
from typing import Any, Self

from geniehive.kit import tls_probe
from geniehive.kit.http1.connection import Connection
from geniehive.kit.http1.errors import ConnectFailed, ConnectionLost, ConnectTimeout, HttpError, TotalTimeout
from geniehive.kit.http1.head import CHUNKED, Header, HeaderLines, encode_head, length_framing
from geniehive.kit.http1.limits import DEFAULT_TIMEOUTS, READ_SIZE, Timeouts
from geniehive.kit.http1.origin import Origin
from geniehive.kit.http1.response import Response
from geniehive.kit.http1.upload import Measured, send_stream
from geniehive.kit.outbox import Outbox

# Says why the holder of a certificate (as `ssl.SSLSocket.getpeercert` gives it) is not to be spoken to; None: it is.
Admit = Callable[[Mapping[str, Any]], str | None]

_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})


class Client:
    """Asks upstreams over kept connections. To be made inside the running loop that will use it.

    ssl_context: for https origins; without one the system's trust with verification, loaded when first needed.
    outbox: where requests with small bodies are written; without one each leaves at once.
    admit: asked once per TLS connection, beyond what the context verifies.
    max_idle_per_origin: connections kept for later; there is no limit on those in use.
    idle_ttl: seconds after which an unused connection is closed.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None = None,
        max_idle_per_origin: int = 64,
        idle_ttl: float = 30.0,
        admit: Admit | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._ssl_context = ssl_context
        self._admit = admit
        self._max_idle = max_idle_per_origin
        self._idle_ttl = idle_ttl
        self._idle: dict[Origin, deque[Connection]] = {}
        self._open: set[Connection] = set()
        self._closing: set[Connection] = set()
        self._all_closed: asyncio.Future[None] | None = None
        self._closed = False
        self._buffer = memoryview(bytearray(READ_SIZE))

    async def request(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Sequence[Header] | HeaderLines = (),
        body: bytes | AsyncIterable[bytes] | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> Response:
        """Sends a request and returns as soon as the head of the answer is there.

        `target` is path and query, percent-encoded. Host and Content-Length or Transfer-Encoding are added and must
        not be among `headers`. Bytes go over a kept connection if there is one, and are sent again, once, when that
        turns out to have been closed before any byte of an answer. A streamed body can't be sent again and always gets
        a fresh connection; it is not sent further once an answer is there.

        Raises ValueError for what can't be sent, HttpError as listed in `errors`, and what `body` itself raises.
        """
        total_at = inf if timeouts.total is None else self._loop.time() + timeouts.total
        head_only = method == "HEAD"
        if body is not None and not isinstance(body, bytes):
            framing = length_framing(body.length) if isinstance(body, Measured) else CHUNKED
            head = encode_head(origin, method, target, headers, framing)
            connection = await self._connect(origin, timeouts, total_at)
            return await self._ask(connection, head, body, head_only, timeouts, total_at)
        framing = b"\r\n" if body is None and method not in _BODY_EXPECTED else length_framing(len(body or b""))
        head = encode_head(origin, method, target, headers, framing)
        kept = self._take(origin)
        if kept is None:
            connection = await self._connect(origin, timeouts, total_at)
            return await self._ask(connection, head, body, head_only, timeouts, total_at)
        try:
            # As `_ask` does it: this is the way of nearly every request.
            kept.send(head, body, head_only, timeouts, total_at)
            await kept.wait_head()
            return Response(kept, self._give_back)
        except ConnectionLost:
            kept.abort()
            if kept.answered or self._closed:
                raise
        except BaseException:
            kept.abort()
            raise
        try:
            connection = await self._connect(origin, timeouts, total_at)
            return await self._ask(connection, head, body, head_only, timeouts, total_at)
        except HttpError as error:
            error.sent = True  # the first time, possibly
            raise

    def idle_count(self, origin: Origin) -> int:
        """Connections to `origin` that are kept for later."""
        return len(self._idle.get(origin, ()))

    @property
    def open_count(self) -> int:
        """Connections that stand, idle or in use."""
        return len(self._open)

    def recheck(self) -> None:
        """Closes the connections, idle and in use, that `admit` no longer admits; their answers fail."""
        for connection in tuple(self._open):
            if (why := self._refused(connection)) is not None:
                connection.distrust(why)

    def _refused(self, connection: Connection) -> str | None:
        if self._admit is None or (certificate := connection.peer_certificate) is None:
            return None
        return self._admit(certificate)

    async def close(self) -> None:
        """Closes all connections; answers under way fail. Returns when all sockets are closed. Idempotent."""
        self._closed = True
        for connection in tuple(self._open):
            connection.abort()
        if self._closing:
            if self._all_closed is None:
                self._all_closed = self._loop.create_future()
            await asyncio.shield(self._all_closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(
        self,
        connection: Connection,
        head: bytes,
        body: bytes | AsyncIterable[bytes] | None,
        head_only: bool,
        timeouts: Timeouts,
        total_at: float,
    ) -> Response:
        try:
            if body is None or isinstance(body, bytes):
                connection.send(head, body, head_only, timeouts, total_at)
                await connection.wait_head()
            else:
                connection.send(head, None, head_only, timeouts, total_at)
                await send_stream(connection, body)
        except BaseException:
            connection.abort()
            raise
        return Response(connection, self._give_back)

    def _take(self, origin: Origin) -> Connection | None:
        # The youngest first: it is the least likely to have been closed, and the others can age out.
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self, origin: Origin, timeouts: Timeouts, total_at: float) -> Connection:
        if self._closed:
            raise ConnectFailed(f"{origin} was not asked: the client is closed", sent=False)
        tls = (self._ssl_context or await self._default_context()) if origin.scheme == "https" else None
        connection = Connection(origin, self._loop, self._buffer, self._forget, self._outbox)
        now = self._loop.time()
        limit = inf if timeouts.connect is None else now + timeouts.connect
        at = min(limit, total_at)
        try:
            async with asyncio.timeout_at(None if at == inf else at) as scope:
                await self._loop.create_connection(
                    lambda: connection, origin.host, origin.port, ssl=tls, server_hostname=origin.tls_name
                )
        except (OSError, UnicodeError) as problem:
            connection.abort()
            if not (isinstance(problem, TimeoutError) and scope.expired()):
                raise ConnectFailed(f"{origin} can't be reached: {_reason(origin, problem)}", sent=False) from problem
            if total_at < limit:
                raise TotalTimeout(f"{origin} did not finish within {timeouts.total:g} s", sent=False) from None
            raise ConnectTimeout(f"{origin} took no connection within {timeouts.connect:g} s", sent=False) from None
        except BaseException:
            connection.abort()
            raise
        if self._closed or not connection.usable:
            connection.abort()
            reason = "the client is closed" if self._closed else "it closed the connection at once"
            raise ConnectFailed(f"{origin} can't be reached: {reason}", sent=False)
        if tls is not None and (why := self._refused(connection)) is not None:
            connection.abort()
            raise ConnectFailed(f"{origin} is not spoken to: {why}", sent=False)
        self._open.add(connection)
        return connection

    async def _default_context(self) -> ssl.SSLContext:
        # Reading the system's certificates takes tens of milliseconds, hence not on the loop.
        context = await asyncio.to_thread(ssl.create_default_context)
        self._ssl_context = self._ssl_context or context
        return self._ssl_context

    def _give_back(self, connection: Connection) -> None:
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle[connection.origin] = deque()
        if not self._closed and len(idle) < self._max_idle and connection.rest(self._idle_ttl):
            idle.append(connection)
        else:
            connection.abort()
            if not idle:
                self._idle.pop(connection.origin, None)

    def _forget(self, connection: Connection) -> None:
        """Called when a connection became useless, and again when its socket is closed."""
        idle = self._idle.get(connection.origin)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.origin]
        if connection in self._open:
            self._open.remove(connection)
            self._closing.add(connection)
        if connection.closed:
            self._closing.discard(connection)
            if not self._closing and self._all_closed is not None and not self._all_closed.done():
                self._all_closed.set_result(None)


def _reason(origin: Origin, problem: Exception) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError) and origin.tls_name is None:
        # By the system's trust, or one like it; a server with a name of its own is known by its own CA.
        return f"its certificate is not trusted ({problem.verify_message})"
    if isinstance(problem, ssl.SSLError):
        return tls_probe.words(problem)
    if isinstance(problem, socket.gaierror) and problem.strerror:
        return problem.strerror
    if isinstance(problem, OSError) and problem.errno:
        return os.strerror(problem.errno)
    return str(problem) or type(problem).__name__
