"""A streamed request body: sent as its source gives it, no faster than the server takes it."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

from geniehive.kit.http1.connection import Connection


class Measured:
    """A streamed body of a known length, which is announced instead of chunks: not every server takes those."""

    __slots__ = ("_pieces", "length")

    def __init__(self, pieces: AsyncIterable[bytes], length: int) -> None:
        self.length = length
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._pieces)


async def send_stream(connection: Connection, body: AsyncIterable[bytes]) -> None:
    """Sends `body` until its end or until the response head is there, whichever comes first; returns with the head.

    A `Measured` body that turns out to have another length is an error of the source, ValueError.

    An answer before the end of the body is final for us: the rest is not sent and the connection will not be reused. An
    error of the source ends the request and is raised as it is. The source is never asked again after this returns.
    """
    connection.hold_little()
    pump = asyncio.create_task(_pump(connection, body))
    try:
        pump.add_done_callback(lambda done: _pump_ended(connection, done))
        await connection.wait_head(limited=False)
    finally:
        if not pump.done():
            connection.keep = False
            pump.cancel()
            if not connection.head_done:
                connection.abort()  # first the socket: the source may take its time to end
            await asyncio.wait([pump])


async def _pump(connection: Connection, body: AsyncIterable[bytes]) -> None:
    left = body.length if isinstance(body, Measured) else None
    async for piece in body:
        if connection.head_done or connection.error is not None:
            connection.keep = False
            return
        if not piece:  # an empty chunk would end the body
            continue
        if left is None:
            connection.write([b"%x\r\n" % len(piece), piece, b"\r\n"])
        else:
            left -= len(piece)
            if left < 0:
                raise ValueError("the body is longer than was announced")
            connection.write([piece])
        await connection.wait_drained()
    if connection.head_done:
        connection.keep = False
        return
    if left is None:
        connection.write([b"0\r\n\r\n"])
    elif left:
        raise ValueError(f"the body ended {left} bytes before the length that was announced")
    connection.limit_first_byte()


def _pump_ended(connection: Connection, pump: asyncio.Future[None]) -> None:
    error = None if pump.cancelled() else pump.exception()
    if connection.head_done:
        return
    if error is not None:
        connection.fail(error)
    elif pump.cancelled():  # by us, or by a source that gave up
        connection.abort()
