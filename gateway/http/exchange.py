"""One request with its client's connection: the body in, the answer out."""

import asyncio
from contextlib import AbstractContextManager

from aiohttp import web
from multidict import istr

from gateway.core import errors
from gateway.core.api import Dialect
from gateway.core.errors import ApiError
from gateway.http.headers import common
from gateway.http.tally import Tally
from geniehive.kit.http_answer import Answer
from geniehive.kit.http_server import taking_upload
from geniehive.kit.outbox import Outbox

# The most of a body that is read at once.
_PIECE = 64 * 1024

# Claude Code, Open WebUI.
_SESSIONS = (istr("X-Claude-Code-Session-Id"), istr("X-OpenWebUI-Chat-Id"))

JSON = b"content-type: application/json\r\n"


class Refusal(Exception):
    """The request is to be answered with this error."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Exchange(Answer):
    """cluster_id: "" while it is not known. keep_alive: whether the connection may be used further if the client
    wants to. client_idle: seconds that the client may send, or take, nothing; None for no limit.
    """

    __slots__ = ("_keep_later", "cross_origin", "dialect", "hops", "query", "request_id", "tally")

    # Set by whoever keeps records of requests.
    tally: Tally

    def __init__(
        self,
        request: web.BaseRequest,
        request_id: str,
        cluster_id: str,
        keep_alive: bool = True,
        client_idle: float | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.request_id = request_id
        # Of the request: whose words it speaks, what follows its path (with "?"), and the gateways it has passed, with
        # this one.
        self.dialect = Dialect.OPENAI
        self.query = ""
        self.hops = b"1"
        # Whether the request came from a web page that may call.
        self.cross_origin = False
        lines = b"%bx-request-id: %b\r\n" % (common(cluster_id), request_id.encode())
        super().__init__(request, lines, keep_alive, client_idle, outbox)

    def body_there(self, limit: int) -> bytes | None:
        """The whole request body, if it came with the head, as small ones do; None: `body` waits for it.

        Refusal if it is larger than `limit` or malformed.
        """
        content = self._request.content
        if not content.is_eof():
            return None
        try:
            whole = content.read_nowait()
        except web.RequestPayloadError as error:
            raise Refusal(errors.bad_request(f"The request body is malformed: {error}")) from error
        if len(whole) > limit:
            raise Refusal(errors.too_large(limit))
        return whole

    async def body(self, limit: int) -> bytes:
        """The whole request body. Refusal if it is larger than `limit`, malformed or too slow."""
        try:
            return await self._rest_of_body(limit)
        except TimeoutError:
            raise Refusal(errors.too_slow(self._client_idle or 0)) from None
        except web.RequestPayloadError as error:
            raise Refusal(errors.bad_request(f"The request body is malformed: {error}")) from error

    async def _rest_of_body(self, limit: int) -> bytes:
        announced = self._request.content_length
        if announced is not None and announced > limit:
            raise Refusal(errors.too_large(limit))
        self._bid_on()
        parts: list[bytes] = []
        size = 0
        while True:
            async with asyncio.timeout(self._client_idle):
                part = await self._request.content.readany()
            if not part:
                return b"".join(parts)
            size += len(part)
            if size > limit:
                raise Refusal(errors.too_large(limit))
            parts.append(part)

    def _bid_on(self) -> None:
        """A client that asked whether it may send its body may."""
        if self._request.headers.get("Expect", "").lower() == "100-continue":
            self._put(b"HTTP/1.1 100 Continue\r\n\r\n")

    def begin_body(self, limit: int, setting: str) -> int | None:
        """The body is going to be read by `piece`; its length, if that is known. Refusal if that is more than `limit`.

        Until all of it has been read an answer closes the connection.
        """
        self._keep_later, self._keep = self._keep, False
        content = self._request.content
        announced = self._request.content_length
        if announced is not None and announced > limit:
            raise Refusal(errors.too_large(limit, setting))
        if not content.is_eof():
            self._bid_on()
        # Of a compressed body it is another one's.
        return None if "Content-Encoding" in self._request.headers else announced

    async def piece(self) -> bytes:
        """What has come of the body, at least a byte; b"" at its end. Refusal if it is malformed or too slow."""
        try:
            async with asyncio.timeout(self._client_idle):
                piece = await self._request.content.read(_PIECE)
        except TimeoutError:
            raise Refusal(errors.too_slow(self._client_idle or 0)) from None
        except web.RequestPayloadError as error:
            raise Refusal(errors.bad_request(f"The request body is malformed: {error}")) from error
        if self.body_read:
            self._keep = self._keep_later
        return piece

    @property
    def session(self) -> str:
        """What the client calls its session; "" if it has no name for it."""
        headers = self._request.headers
        for name in _SESSIONS:
            if found := headers.get(name):
                return found
        return ""

    @property
    def body_read(self) -> bool:
        """Whether all of the body has been read."""
        return self._request.content.at_eof()

    def taking_upload(self) -> AbstractContextManager[None]:
        """While this lasts the body comes in pieces, and the client's leaving ends the call though it is not read."""
        return taking_upload(self._request.transport)

    @property
    def content_type(self) -> str:
        """What the client says of the body; more than one is refused by the server."""
        return self._request.headers.get("Content-Type", "")

    def allow(self, lines: bytes) -> None:
        """The answer goes to a web page, which may read it if there are `lines` to tell its browser so."""
        self.cross_origin = bool(lines)
        self._common += lines

    def error(self, error: ApiError) -> None:
        headers = JSON
        if self.dialect is Dialect.ANTHROPIC:
            headers += b"request-id: %b\r\n" % self.request_id.encode()
        if error.retry_after is not None:
            headers += b"retry-after: %d\r\n" % error.retry_after
        if error.allow:
            headers += f"allow: {error.allow}\r\n".encode()
        if error.status == 401:
            headers += b"www-authenticate: Bearer\r\n"
        if error.close:
            self._keep = False
        self.whole(error.status_in(self.dialect), headers, error.body(self.dialect, self.request_id))
