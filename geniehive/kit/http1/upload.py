"""A streamed request body: sent in chunks as its source gives them, no faster than the server takes them."""

import asyncio
from collections.abc import AsyncIterable

from geniehive.kit.http1.connection import Connection


async def send_stream(connection: Connection, body: AsyncIterable[bytes]) -> None:
    """Sends `body` until its end or until the response head is there, whichever comes first; returns with the head.

    An answer before the end of the body is final for us: the rest is not sent and the connection will not be reused. An
    error of the source ends the request and is raised as it is. The source is never asked again after this returns.
    """
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
    async for piece in body:
        if connection.head_done or connection.error is not None:
            connection.keep = False
            return
        if piece:  # an empty chunk would end the body
            connection.write([b"%x\r\n" % len(piece), piece, b"\r\n"])
            await connection.wait_drained()
    if connection.head_done:
        connection.keep = False
        return
    connection.write([b"0\r\n\r\n"])
    connection.limit_first_byte()


def _pump_ended(connection: Connection, pump: asyncio.Future[None]) -> None:
    error = None if pump.cancelled() else pump.exception()
    if connection.head_done:
        return
    if error is not None:
        connection.fail(error)
    elif pump.cancelled():  # by us, or by a source that gave up
        connection.abort()
