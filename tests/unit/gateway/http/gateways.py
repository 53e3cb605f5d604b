"""A gateway's HTTP side on a real port, over a table that the test makes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from gateway.core.admission import Admission
from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.cors import Cors
from gateway.core.crew import Levels
from gateway.core.latency import Latencies
from gateway.core.metrics import Metrics
from gateway.core.outcome import Outcome
from gateway.core.questions import Found, Question
from gateway.core.table import Table
from gateway.http.access import AccessLog
from gateway.http.calls import Calls
from gateway.http.cluster import ClusterApi, Explain
from gateway.http.cluster.explain import Ask
from gateway.http.forms import Forms
from gateway.http.handler import Handler
from gateway.http.metrics import MetricsPage
from gateway.http.records import Records
from gateway.http.server import HttpServer
from gateway.patience import Patience
from gateway.upstream import Body, Upstream
from geniehive.kit import http1
from geniehive.kit.clock import SystemClock
from geniehive.rules.model import Resource
from geniehive.rules.operations import BY_PATH
from tests.support.raw_server import Peer
from tests.unit.gateway.builders import key, table, until

SECRET = "sk-test"
CHAT_PATH = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'


async def no_usage(question: Question, key_id: str) -> Found:
    """Nothing was used."""
    return Found([], "")


class Answer:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}
        self.body = body


class Gateway:
    """`async with Gateway(*resources) as gateway:`; a key of scope infer is in its table."""

    def __init__(
        self,
        *resources: Resource,
        auth: bool = True,
        max_body: int = 1 << 20,
        max_upload: int = 256 << 20,
        upload_dir: str | None = None,
        client_idle: float | None = 5.0,
        timeouts: http1.Timeouts | None = None,
        cold: bool = False,
        cors: tuple[str, ...] = (),
        admission: Admission | None = None,
        ask_usage: bool = True,
        access: AccessLog | None = None,
        cluster: ClusterApi | None = None,
        asks: Ask | None = None,
    ) -> None:
        self.table = Table("here") if cold else table(key(SECRET), *resources)
        self._cors = Cors(cors)
        self._cluster = cluster
        # Answers questions about the cluster, in control's place.
        self._asks = asks
        self._uploads = max_upload, upload_dir
        self.balance = Balance(admission)
        self._ask_usage = ask_usage
        self._outcomes: list[Outcome] = []
        self._latencies = Latencies(self.table.has_model)
        also = (self._outcomes.append, self._latencies.record)
        self.records = Records(Metrics(self.table.has_model), SystemClock(), access, also)
        self.asked: list[tuple[str, str]] = []
        self.learned: Table | None = None
        self._settings = auth, max_body, client_idle, timeouts or http1.Timeouts(first_byte=5.0, idle=5.0)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of calls to models that have ended."""
        self.records.flush()
        return self._outcomes

    async def look_up(self, model: str, key_id: str) -> Table | None:
        self.asked.append((model, key_id))
        return self.learned

    async def __aenter__(self) -> Self:
        auth, max_body, client_idle, timeouts = self._settings
        self.upstreams = http1.Client()
        self.forms = Forms(*self._uploads)
        self.client = http1.Client()
        self.upstream = Upstream(self.upstreams)
        patience = dict.fromkeys(BY_PATH, Patience(timeouts))
        calls = Calls(self.table, self.balance, RetryBudget(), self.upstream, self.look_up, SystemClock(), max_body,
                      self.forms, patience, self._ask_usage)  # fmt: skip
        if self._asks is not None:
            clock = SystemClock()
            explain = Explain(self._asks, self.table, self.look_up, self.balance, clock)
            self._cluster = ClusterApi(self._asks, no_usage, explain, clock)
        self.metrics = MetricsPage(self.records, self._levels)
        self.handler = Handler(
            self.table, calls, self.look_up, auth=auth, client_idle=client_idle, records=self.records,
            metrics=self.metrics, cors=self._cors, cluster=self._cluster,
            latency=self._latencies.p50,
        )  # fmt: skip
        self.server = HttpServer(self.handler)
        self.url = await self.server.start("127.0.0.1:0")
        self.origin = http1.Origin.parse(self.url)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.client.close()
        await self.server.drain(1.0)
        await self.upstreams.close()
        self.forms.close()

    def _levels(self) -> Levels:
        return Levels(
            clients=len(self.handler.open), upstream_connections=self.upstreams.open_count, ejected=0,
            table_generation=self.table.generation, table_age=None, routes=self.balance.routes(),
        )  # fmt: skip

    async def ended(self, count: int = 1) -> list[Outcome]:
        """The outcomes of so many calls, as soon as they have ended."""
        await until(lambda: len(self.outcomes) >= count)
        return self.outcomes

    async def open(self, method: str, path: str, body: Body | None = None, **headers: str) -> http1.Response:
        """Header names with "_" for "-"; the test's key is sent unless an `authorization` is given."""
        given = {"authorization": f"Bearer {SECRET}", **headers}
        pairs = [(name.replace("_", "-"), value) for name, value in given.items() if value]
        return await self.client.request(self.origin, method, path, pairs, body)

    async def ask(self, method: str, path: str, body: Body | None = None, **headers: str) -> Answer:
        async with await self.open(method, path, body, **headers) as response:
            return Answer(response.status, response.headers, await response.read())

    async def chat(self, body: bytes = BODY, **headers: str) -> Answer:
        return await self.ask("POST", CHAT_PATH, body, **headers)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection to it."""
        reader, writer = await asyncio.open_connection(self.origin.host, self.origin.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def stream_head(peer: Peer, content_type: str = "text/event-stream") -> None:
    """The head of a chunked answer."""
    await peer.send(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())


async def stream_piece(peer: Peer, piece: bytes) -> None:
    """A piece of it; an empty one ends it."""
    await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
