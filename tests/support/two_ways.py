"""One engine offered by two ways, direct and by a relay with TLS, and what clients do and see there, byte for byte."""

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil

from geniehive.kit import address, machine
from geniehive.kit.http1 import Origin
from geniehive.rules.operations import Operation
from tests.support.daemons import Cluster
from tests.support.fake_forms import PATHS as FORMS
from tests.support.processes import ROOT, Process, until
from tests.support.raw_server import Peer, RawServer

OWN = next((a for a in machine.addresses() if ":" not in a), None)

# What an engine does with a call whose head it has read; it is let go afterwards if that gives False.
Play = Callable[[Peer, bytes], Awaitable[bool]]

WAYS = ("direct", "relayed")
SPARED = 0.25  # seconds after which an engine must know that nobody waits any more
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": []}\n\n'
DONE = b"data: [DONE]\n\n"
# Of the hop, of the gateway's own, or of the moment.
NOT_COMPARED = re.compile(rb"(date|connection|x-request-id|x-geniehive-.*)$", re.IGNORECASE)


FORM = b"multipart/form-data; boundary=-b-"


def form(path: str, fields: dict[str, Any], size: int) -> bytes:
    """The fields, and then a file of so many bytes."""
    file = "image" if "images" in path else "file"
    parts = [f'---b-\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    parts.append(f'---b-\r\nContent-Disposition: form-data; name="{file}"; filename="f"\r\n\r\n')
    return "".join(parts).encode() + b"x" * size + b"\r\n---b---\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def body_of(peer: Peer, head: bytes) -> bytes:
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        body = bytearray()
        while size := int(await peer.reader.readline(), 16):
            body += (await peer.reader.readexactly(size + 2))[:-2]
        await peer.reader.readexactly(2)
        return bytes(body)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return await peer.reader.readexactly(int(length[1]) if length else 0)


class Door(RawServer):
    """A server that can be shut: whoever connects then waits, as for a machine that is off."""

    async def __aenter__(self) -> Self:
        self._socket = socket.create_server((self._host, 0))
        self._socket.setblocking(False)
        self._waiting: list[socket.socket] = []
        self._started: set[asyncio.Task[None]] = set()
        self.port = self._socket.getsockname()[1]
        self.origin = Origin("http", self._host, self.port)
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stop_accepting()
        self._drop_waiting()
        self._server = await asyncio.start_server(lambda _reader, writer: writer.close(), sock=self._socket)
        await super().__aexit__(*failure)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._socket)
            reader, writer = await asyncio.open_connection(sock=accepted)
            self._started.add(started := asyncio.create_task(self._serve(reader, writer)))
            started.add_done_callback(self._started.discard)

    async def _stop_accepting(self) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])

    def _drop_waiting(self) -> None:
        for waiting in self._waiting:
            waiting.close()
        self._waiting.clear()

    async def shut(self) -> None:
        await self._stop_accepting()
        self._socket.listen(0)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            while True:
                self._waiting.append(socket.socket())
                self._waiting[-1].setblocking(False)
                async with asyncio.timeout(0.1):
                    await loop.sock_connect(self._waiting[-1], ("127.0.0.1", self.port))

    def open(self) -> None:
        self._drop_waiting()
        self._socket.listen(100)
        self._accepting = asyncio.create_task(self._accept())


class Engine:
    """On bare sockets: `play` says what it does with calls."""

    def __init__(self) -> None:
        self.play: Play = self.well
        self.calls = 0
        self.server = Door(self._serve)

    @property
    def url(self) -> str:
        return str(self.server.origin)

    async def _serve(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            if head.startswith(b"GET "):
                await peer.answer(
                    b'{"object": "list", "data": [{"id": "m"}]}', extra=b"Content-Type: application/json\r\n"
                )
                continue
            self.calls += 1
            if not await self.play(peer, head):
                return

    async def well(self, peer: Peer, head: bytes) -> bool:
        await body_of(peer, head)
        await peer.answer(b'{"choices": []}', extra=b"Content-Type: application/json\r\n")
        return True


class Answer(NamedTuple):
    """whole: it ended as its framing says."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool

    def header(self, name: str) -> str | None:
        return next((v.decode() for k, v in self.headers if k.decode().lower() == name), None)

    @property
    def compared(self) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
        kept = [(k, v) for k, v in self.headers if not NOT_COMPARED.match(k)]
        return self.status, kept, self.body, self.whole


class Call:
    """A client's connection with one call on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._begun: tuple[int, list[tuple[bytes, bytes]]] | None = None

    async def begin(self) -> None:
        """Until the head and one event are there."""
        async with asyncio.timeout(10):
            self._begun = await self.head()
            assert self._begun[0] == 200, self._begun
            await self.reader.readuntil(EVENT)
            await self.reader.readexactly(2)

    def leave(self, reset: bool = False) -> None:
        """reset: even what was sent and not taken is lost. Else the other side learns of it behind that."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        headers = [(k, v.strip()) for k, _, v in (line.partition(b":") for line in lines[1:])]
        return int(lines[0].split()[1]), headers

    async def answer(self, within: float = 20.0) -> Answer:
        async with asyncio.timeout(within):
            status, headers = self._begun or await self.head()
            body = bytearray()
            whole = await self._body(status, {k.lower(): v for k, v in headers}, body)
        self.writer.close()
        return Answer(status, headers, bytes(body), whole)

    async def _body(self, status: int, headers: dict[bytes, bytes], body: bytearray) -> bool:
        if status in (204, 304):
            return True
        try:
            if headers.get(b"transfer-encoding") == b"chunked":
                while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            else:
                left = int(headers[b"content-length"])
                while left and (piece := await self.reader.read(left)):
                    body += piece
                    left -= len(piece)
                return not left
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        return True


class House:
    """Control, a gateway, and one engine offered twice: by a node that lets it be reached, and by one that relays."""

    def __init__(self, cluster: Cluster, engine: Engine) -> None:
        self.cluster = cluster
        self.engine = engine
        self._calls: list[Call] = []

    async def start(
        self, *gateway: str, control: str = "tls.certificate_days=30", node: str = "poll_interval=1.0"
    ) -> None:
        await self.cluster.start_control("tls.listen=127.0.0.1:0", "tls.peers_port=0", control)
        everything = [operation.word for operation in Operation]
        entry = {"name": "e", "url": self.engine.url, "models": ["m"], "operations": everything}
        await self.cluster.start_node("direct", {}, "way=direct", node, settings=[entry])
        await self.cluster.start_node("relayed", {}, "way=relay", f"relay.listen={OWN}:0", node, settings=[entry])
        await self.cluster.start_gateway("gateway_id=direct", *gateway)
        await self.serves()

    async def serves(self) -> None:
        self.engine.play = self.engine.well
        for way in WAYS:
            await until(f"{way} answers", lambda way=way: self._answers(way), 15.0)

    async def _answers(self, way: str) -> bool:
        answer = await (await self.call(way)).answer()
        if answer.status != 200:
            return False
        assert answer.header("x-geniehive-host") == way
        return True

    async def call(self, way: str, padding: int = 0, headers: bytes = b"", **more: Any) -> Call:
        body = json.dumps({"model": f"{way}/e", "messages": [], "padding": "x" * padding, **more}).encode()
        return await self.send(body, headers)

    async def ask(self, path: str, way: str, padding: int = 0, kept_back: int = 0, **more: Any) -> Call:
        """As JSON or as a form, by what the path takes; without its last bytes, so many."""
        if path in FORMS:
            body, kind = form(path, {"model": f"{way}/e", "prompt": "x", **more}, padding), FORM
        else:
            fields = {"model": f"{way}/e", "messages": [], "input": "x", "padding": "x" * padding, **more}
            body, kind = json.dumps(fields).encode(), b"application/json"
        return await self.send(body, b"Content-Type: %b\r\n" % kind, path, kept_back)

    async def send(
        self, body: bytes, headers: bytes = b"", path: str = "/v1/chat/completions", kept_back: int = 0
    ) -> Call:
        reader, writer = await asyncio.open_connection(*address.split(self.cluster.gateway_address), limit=1 << 20)
        head = f"POST {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {self.cluster.client_key}\r\n"
        writer.write(
            head.encode() + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body[: len(body) - kept_back]
        )
        made = Call(reader, writer)
        self._calls.append(made)
        return made

    def close(self) -> None:
        for call in self._calls:
            call.leave()

    @property
    def daemons(self) -> tuple[Process, Process]:
        return self.cluster.gateway, self.cluster.nodes["relayed"]


class Loopless(Cluster):
    """Daemons that find no uvloop, as on Windows."""

    def process(self, name: str, *arguments: str) -> Process:
        shadow = self.folder / "shadow"
        shadow.mkdir(exist_ok=True)
        (shadow / "uvloop.py").write_text("raise ImportError('not here')\n")
        made = Process(name, arguments, self.folder, {"PYTHONPATH": f"{ROOT}:{shadow}"})
        self._stack.push_async_exit(made)
        return made


@contextlib.asynccontextmanager
async def house_in(folder: Path, kind: type[Cluster] = Cluster) -> AsyncIterator[House]:
    """Where nothing is started yet but the engine."""
    engine = Engine()
    async with engine.server, kind(folder) as cluster:
        made = House(cluster, engine)
        yield made
        made.close()


def hung_up(peer: Peer) -> bool:
    """Whether the other side closed, by the kernel's word: what it sent before is not read."""
    sock = peer.writer.get_extra_info("socket")
    try:
        mine, theirs = sock.getsockname()[1], sock.getpeername()[1]
    except OSError:
        return True  # by a reset
    for other in psutil.net_connections("tcp4"):
        if other.laddr.port == theirs and other.raddr and other.raddr.port == mine:
            return bool(other.status != psutil.CONN_ESTABLISHED)
    return True


def resident(process: Process) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)
