"""A scriptable server on bare sockets: a test says what each connection does, and waits for what the client did."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

from geniehive.kit.http1 import Origin


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number  # of the connection, from 0

    async def head(self) -> bytes:
        """The head of the next request, with the empty line."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> tuple[bytes, bytes]:
        """Head and decoded body of the next request."""
        head = await self.head()
        if b"Transfer-Encoding: chunked" in head:
            body = bytearray()
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
            return head, bytes(body)
        for line in head.split(b"\r\n"):
            if line.startswith(b"Content-Length: "):
                return head, await self.reader.readexactly(int(line[16:]))
        return head, b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"ok", status: bytes = b"200 OK", extra: bytes = b"") -> None:
        await self.send(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), extra, body))

    async def gone(self) -> None:
        """Until the client has closed its side (an end or a reset; unread bytes are skipped)."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Runs `script` for each connection and closes it afterwards. A script's exception fails the test at the end."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script = script
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.errors: list[BaseException] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        name = "localhost" if self._tls else self._host
        self.origin = Origin("https" if self._tls else "http", name, self.port)
        return self

    async def __aexit__(self, *failure: object) -> None:
        # asyncio loses the socket of a connection that is being accepted when its server is closed.
        for _ in range(3):
            await asyncio.sleep(0)
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        await self._server.wait_closed()
        if self.errors:
            raise self.errors[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer, self.connections)
        self.connections += 1
        try:
            await self._script(peer)
        except asyncio.CancelledError:
            writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left; a test that cares awaits `gone`
        except BaseException as error:  # noqa: BLE001 - given to the test
            self.errors.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()
