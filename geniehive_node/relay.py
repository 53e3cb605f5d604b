"""The way from a gateway to an engine that needs a key, listens on loopback, or wants another path.

`POST {base_url}/{host}/{service}{API path}` goes to the service's engine with the engine's own key. Off loopback this
is HTTPS, and gateways are known by their certificates (see `door`); on loopback it is HTTP, and every request has
`authorization: Bearer {token}`. Nothing else goes through: only registered services, only the API's paths, exactly as
they are spelled. The gateway sets the limits in time; when it leaves, the engine's work is aborted.

`GET {base_url}/{host}/{service}/probe` asks whether the engine is well (see `probing`). Control may do that alone.
"""

import asyncio
import hmac
import logging
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from functools import lru_cache
from typing import cast

import orjson
from aiohttp import web

from geniehive.kit import address, http_head, http_server
from geniehive.kit.http1 import (
    Client,
    ConnectFailed,
    ConnectTimeout,
    FirstByteTimeout,
    HeaderLines,
    HttpError,
    IdleTimeout,
    Measured,
    Response,
    Timeouts,
    TotalTimeout,
    join_lines,
    line_start,
)
from geniehive.kit.http_answer import CLOSE, Answer
from geniehive.kit.http_server import Connection, fault, taking_upload
from geniehive.membership import Credential
from geniehive.rules.hops import HOPS
from geniehive.rules.probe_paths import AT_RELAY
from geniehive_node import probing
from geniehive_node.core import ways
from geniehive_node.door import Door, Refusal
from geniehive_node.engines.ask import GENIEHIVE, Target

log = logging.getLogger(__name__)

ERROR_HEADER = "x-geniehive-relay-error"
# A request up to this size is sent whole, and again if a kept connection had died; more is streamed, by a connection of
# its own. With TLS that would cost a handshake.
_WHOLE = {"http": 512 * 1024, "https": 4 * 1024 * 1024}
_READ_SIZE = 64 * 1024
# Unread bytes of one: from twice as many on, and what one read brings, the gateway has to wait.
_UNREAD = 32 * 1024
# More than a gateway takes from its clients, so that what it took gets through.
_LINE_LIMIT = 16 * 1024
_FIELD_LIMIT = 64 * 1024
_FIELDS = 256
# Requests under way; a gateway does something else with what comes on top.
REQUESTS = 4096
# For those who may not ask, to ask and be told so.
_REFUSED_SECONDS = 5.0
# For what was cut to end in order.
_LAST_SECONDS = 0.1

_NOT_SENT_ON = http_head.HOP_BY_HOP | {b"authorization", b"x-api-key", b"cookie"}
_OURS = (b"x-geniehive-",)
_HOPS = HOPS.lower().encode()
_KEY = line_start("authorization")


_STOPPING = Refusal(503, "stopping", "this node is stopping")
_BUSY = Refusal(503, "busy", f"{REQUESTS} requests are under way through this relay, and no more are taken", 1)

_WELL = b'{"status":"ok"}'
_WELL_LINES = f"content-type: application/json\r\nserver: {GENIEHIVE}\r\n".encode()


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def _refused(status: int, word: str, message: str) -> _Refused:
    return _Refused(Refusal(status, word, message))


class _Connection(Connection):
    """A gateway's connection. Says malformed HTTP to be so as all our errors are said, and in one line of the log."""

    __slots__ = ("door", "only_probes", "refusal")

    door: Door
    only_probes: bool
    # The only answer that this peer gets.
    refusal: Refusal | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports of TLS are no asyncio.Transport by class.
        transport = cast(asyncio.Transport, transport)
        self.refusal = self.door.enter(transport)
        self.only_probes = self.door.only_probes(transport)
        if self.refusal is not None:
            asyncio.get_running_loop().call_later(_REFUSED_SECONDS, transport.abort)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.transport is not None:
            self.door.leave(self.transport)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        said = fault(message)
        log.info("refused what is not HTTP: %s", said)
        refusal = Refusal(status, "bad-request", f"this is not HTTP/1.1 as it should be: {said}")
        return _refuse(Answer(request, keep_alive=False), refusal)


class RelayServer:
    """`serve` says what each service id leads to.

    credential: of this node, for TLS; must have a certificate when the relay starts. token: without TLS.
    base_url: where it listens, as the system names that address; empty before `start`.
    """

    def __init__(
        self,
        client: Client,
        connect_timeout: float,
        *,
        token: str | None = None,
        credential: Credential | None = None,
        requests: int = REQUESTS,
    ) -> None:
        assert (token is None) != (credential is None)
        self._client = client
        self._token = f"Bearer {token}".encode() if token is not None else None
        self._credential = credential
        self._door = Door(credential)
        self._most = requests
        # Only the connect limit is ours: how long an answer may take, the gateway knows.
        self._timeouts = Timeouts(connect=connect_timeout, first_byte=None, idle=None)
        self._host_id = ""
        self._routes: Mapping[str, Target] = {}
        self._in_flight: Counter[str] = Counter()
        self._total = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._manager = web.Server(self._handle, handler_cancellation=True)
        self._server: asyncio.Server | None = None
        self.base_url = ""

    def serve(self, host_id: str, routes: Mapping[str, Target]) -> None:
        """Replaces what can be reached."""
        self._host_id = host_id
        self._routes = routes

    def in_flight(self) -> Mapping[str, int]:
        """Requests passing through now, by service id."""
        return +self._in_flight

    async def start(self, listen: str) -> None:
        """UserError if the address can't be had."""
        host, _ = address.split(listen)
        assert self._credential is not None or address.is_loopback(host)
        advice = "Is another node running? Choose another address: relay.listen"
        context = self._credential.server_context() if self._credential is not None else None
        self._server, self.base_url = await http_server.listen(self._connection, listen, "the relay", advice, context)

    def _connection(self) -> _Connection:
        connection = _Connection(
            self._manager,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=75.0,
            read_bufsize=_UNREAD,
            max_line_size=_LINE_LIMIT,
            max_field_size=_FIELD_LIMIT,
            max_headers=_FIELDS,
        )
        connection.door = self._door
        return connection

    async def stop(self, grace: float) -> None:
        """Refuses new requests, gives open ones `grace` seconds to end, then closes everything."""
        self._stopping = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d relayed requests did not end in time and are cut", self._total)
        if self._server is not None:
            self._server.close()
        await self._manager.shutdown(_LAST_SECONDS)
        self._door.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        if connection.refusal is not None:
            return _refuse(Answer(request, keep_alive=False), connection.refusal)
        answer = Answer(request, keep_alive=not self._stopping)
        try:
            service_id, rest = self._find(request)
            if rest == AT_RELAY and request.method == "GET":
                return await self._probe(answer, self._routes[service_id])
            if connection.only_probes:
                raise _refused(403, "unauthorized", "control may ask whether engines are well, and nothing else")
            path = self._admit(request.method, self._routes[service_id], rest)
        except _Refused as refused:
            return _refuse(answer, refused.refusal)
        self._in_flight[service_id] += 1
        self._total += 1
        self._idle.clear()
        try:
            await self._forward(request, answer, self._routes[service_id], path)
            return answer.result
        except _Refused as refused:
            return _refuse(answer, refused.refusal)
        except ConnectionError:
            return CLOSE  # the gateway left
        finally:
            self._in_flight[service_id] -= 1
            self._total -= 1
            if not self._total:
                self._idle.set()

    def _find(self, request: web.BaseRequest) -> tuple[str, str]:
        """The service id, and what stands after it in the path, with the query."""
        if self._token is not None:
            given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._token):
                raise _refused(401, "unauthorized", "the relay's token is missing or not this one")
        if self._stopping:
            raise _Refused(_STOPPING)
        if self._total >= self._most:
            raise _Refused(_BUSY)
        # "", host, service, the rest
        parts = request.raw_path.split("/", 3)
        if len(parts) < 4 or parts[:2] != ["", self._host_id] or parts[2] not in self._routes:
            raise _refused(404, "unknown-service", "this node offers no such service")
        return parts[2], f"/{parts[3]}"

    @staticmethod
    def _admit(method: str, target: Target, rest: str) -> str:
        """The engine's path, with the query."""
        path, mark, query = rest.partition("?")
        wanted = ways.upstream_path(target.base_path, path)
        if wanted is None:
            raise _refused(404, "path-not-allowed", "this is no path of the API")
        if method != "POST":
            raise _refused(405, "path-not-allowed", f"{method} is not allowed; POST is")
        return target.paths.get(wanted, wanted) + mark + query

    async def _probe(self, answer: Answer, target: Target) -> web.StreamResponse:
        refusal = await probing.ailment(self._client, target)
        if refusal is not None:
            return _refuse(answer, refusal)
        if not answer.alive:
            return CLOSE
        answer.whole(200, _WELL_LINES, _WELL)
        return answer.result

    async def _forward(self, request: web.BaseRequest, answer: Answer, target: Target, path: str) -> None:
        try:
            parts = http_head.request_parts(request.raw_headers, _line_start)
            if target.key is not None:
                parts += (_KEY, f"Bearer {target.key}".encode())
            lines = join_lines(parts)
        except ValueError as error:
            raise _cannot_be_sent(error) from error
        length = request.content_length
        try:
            if length is not None and length <= _WHOLE[target.origin.scheme]:
                response = await self._ask(target, path, lines, await _whole(request))
            else:
                pieces = _pieces(request)
                with taking_upload(request.transport):
                    body = pieces if length is None else Measured(pieces, length)
                    response = await self._ask(target, path, lines, body)
        except HttpError as error:
            raise _refusal_for(error) from error
        except ValueError as error:
            raise _cannot_be_sent(error) from error
        except web.RequestPayloadError as error:
            raise _broken(error) from error
        try:
            if response.status == 401 and target.key is not None:
                # Not the caller's key, and the answer may quote a part of it.
                raise _refused(502, "key-refused", "the engine refuses the key that this node has for it")
            await _pass_on(response, answer)
        finally:
            # Without effect after a whole answer; else the engine need not work on.
            response.abort()

    async def _ask(self, target: Target, path: str, lines: HeaderLines, body: bytes | AsyncIterable[bytes]) -> Response:
        return await self._client.request(target.origin, "POST", path, lines, body, self._timeouts)


async def _whole(request: web.BaseRequest) -> bytes:
    try:
        content = request.content
        return content.read_nowait(-1) if content.is_eof() else await content.read()
    except web.RequestPayloadError as error:
        raise _broken(error) from error


def _broken(error: web.RequestPayloadError) -> _Refused:
    return _refused(400, "bad-request", f"the request body is malformed: {error}")


async def _pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    while piece := await request.content.read(_READ_SIZE):
        yield piece


async def _pass_on(response: Response, answer: Answer) -> None:
    """An answer as it arrives. A broken one is broken off, so that it cannot pass for a whole one."""
    head = http_head.read_head(response.headers)
    # What came with its head leaves with it.
    first = response.arrived()
    length = 0 if response.status in http_head.EMPTY_STATUSES else head.length
    if length is not None and response.complete:
        answer.whole(response.status, head.lines, first)
        response.release()
        return
    answer.begin(response.status, head.lines, length, first)
    try:
        while piece := await response.chunk():
            if response.complete:
                break  # with the end, in one write
            await answer.send(piece)
    except HttpError as error:
        log.warning("an answer broke off: %s", error)
        # Closed, not aborted: what came of it is passed on.
        answer.close_after()
        return
    answer.end(piece)
    response.release()


@lru_cache(maxsize=1024)
def _line_start(name: bytes) -> bytes | None:
    if name.lower() == _HOPS:
        return line_start(name)  # what listens here may be another cluster's gateway
    return http_head.line_start(name, _NOT_SENT_ON, _OURS)


def _refusal_for(error: HttpError) -> _Refused:
    match error:
        case ConnectFailed():
            return _refused(502, "connect-failed", str(error))
        case ConnectTimeout() | FirstByteTimeout() | IdleTimeout() | TotalTimeout():
            return _refused(504, "timeout", str(error))
    return _refused(502, "upstream-broke", str(error))


def _cannot_be_sent(error: ValueError) -> _Refused:
    return _refused(400, "bad-request", f"cannot be sent on: {error}")


def _refuse(answer: Answer, refusal: Refusal) -> web.StreamResponse:
    kind = "invalid_request_error" if refusal.status < 500 else "api_error"
    error = {"message": refusal.message, "type": kind, "param": None, "code": refusal.word}
    lines = f"content-type: application/json\r\nserver: {GENIEHIVE}\r\n{ERROR_HEADER}: {refusal.word}\r\n"
    if refusal.status == 405:
        lines += "allow: POST\r\n"
    if refusal.retry_after is not None:
        lines += f"retry-after: {refusal.retry_after}\r\n"
    if not answer.alive:
        return CLOSE
    answer.whole(refusal.status, lines.encode(), orjson.dumps({"error": error}))
    return answer.result
