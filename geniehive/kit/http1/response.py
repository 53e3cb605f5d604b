"""The answer of an upstream, read as it arrives."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from geniehive.kit.http1.connection import Connection
from geniehive.kit.http1.errors import TooLarge, Truncated
from geniehive.kit.http1.limits import PAUSE_AT
from geniehive.kit.http1.origin import Origin


class Response:
    """`status` and `headers` (in order, names as received) are there; the body is read by `chunk` or `read`.

    Reading to the end gives the connection back; an error or a cancelled read closes it. Who stops earlier must call
    `release` or `abort`, or use the answer with `async with`. One task at a time may read; any code on the loop may
    abort, which ends a read under way with Truncated.
    """

    __slots__ = ("_at_end", "_connection", "_give_back", "_origin", "headers", "status")

    def __init__(self, connection: Connection, give_back: Callable[[Connection], None]) -> None:
        self.status: int = connection.status
        self.headers: list[tuple[bytes, bytes]] = connection.headers
        self._connection: Connection | None = connection
        self._origin: Origin = connection.origin
        self._give_back = give_back
        self._at_end = False

    def header(self, name: bytes) -> bytes | None:
        """The first header of that name, in whatever case; None without one."""
        name = name.lower()
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    async def chunk(self) -> bytes:
        """All body bytes that have arrived, at least one; b"" at the end and from then on.

        Raises Truncated, IdleTimeout, TotalTimeout or ProtocolError, after all that arrived before was given out.
        """
        connection = self._connection
        if connection is None:
            return self._after_the_end()
        try:
            await connection.wait_body(1)
            data = connection.take()
            if not data and not connection.complete:
                raise connection.error or self._released()
        except BaseException:
            self.abort()
            raise
        if not data:
            self._at_end = True
            self.release()
        return data

    def arrived(self) -> bytes:
        """All unread body bytes that are there already, maybe none; never waits."""
        return b"" if self._connection is None else self._connection.take()

    @property
    def complete(self) -> bool:
        """All of the body has arrived. What of it is unread is still to be had."""
        return self._at_end or (self._connection is not None and self._connection.complete)

    def whole(self) -> bytes | None:
        """The rest of the body if all of it is there, as it is of most small answers; None: it has to be read."""
        connection = self._connection
        if connection is None or not connection.complete:
            return None
        data = connection.take()
        self._at_end = True
        self.release()
        return data

    async def read(self, limit: int | None = None) -> bytes:
        """The rest of the body, whole. Raises as `chunk` does, and TooLarge for more than `limit` bytes."""
        connection = self._connection
        if connection is None:
            return self._after_the_end()
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                if not connection.complete:
                    await connection.wait_body(PAUSE_AT)
                data = connection.take()
                parts.append(data)
                size += len(data)
                if limit is not None and size > limit:
                    raise TooLarge(f"the answer of {self._origin} is longer than {limit} bytes", sent=True)
                if connection.complete:
                    break
                if connection.error is not None:
                    raise connection.error
                if self._connection is None:
                    raise self._released()
        except BaseException:
            self.abort()
            raise
        self._at_end = True
        self.release()
        return data if len(parts) == 1 else b"".join(parts)

    def limit_silence(self, seconds: float, since: str) -> None:
        """From now on the server may be silent for so long at most; `since` says why, in the error's words."""
        if self._connection is not None:
            self._connection.limit_silence(seconds, since)

    def release(self) -> None:
        """Gives the connection back if the answer is complete and it may be kept, else closes it; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._give_back(connection)

    def abort(self) -> None:
        """Closes the connection at once; idempotent, and without effect after `release`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _after_the_end(self) -> bytes:
        if self._at_end:
            return b""
        raise self._released()

    def _released(self) -> Truncated:
        return Truncated(f"the answer of {self._origin} was released before its end", sent=True)
