"""One request with its client's connection: the body in, the answer out."""

import asyncio

from aiohttp import web

from gateway.core import errors
from gateway.core.errors import ApiError
from gateway.http.headers import common
from geniehive.kit.http_answer import Answer

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

    __slots__ = ("request_id",)

    def __init__(
        self,
        request: web.BaseRequest,
        request_id: str,
        cluster_id: str,
        keep_alive: bool = True,
        client_idle: float | None = None,
    ) -> None:
        self.request_id = request_id
        lines = b"%bx-request-id: %b\r\n" % (common(cluster_id), request_id.encode())
        super().__init__(request, lines, keep_alive, client_idle)

    async def body(self, limit: int) -> bytes:
        """The whole request body. Refusal if it is larger than `limit`, malformed or too slow."""
        content = self._request.content
        try:
            if not content.is_eof():
                return await self._rest_of_body(limit)
            whole = content.read_nowait(-1)
        except TimeoutError:
            raise Refusal(errors.too_slow(self._client_idle or 0)) from None
        except web.RequestPayloadError as error:
            raise Refusal(errors.bad_request(f"The request body is malformed: {error}")) from error
        if len(whole) > limit:
            raise Refusal(errors.too_large(limit))
        return whole

    async def _rest_of_body(self, limit: int) -> bytes:
        announced = self._request.content_length
        if announced is not None and announced > limit:
            raise Refusal(errors.too_large(limit))
        if self._request.headers.get("Expect", "").lower() == "100-continue":
            self._transport().write(b"HTTP/1.1 100 Continue\r\n\r\n")
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

    def error(self, error: ApiError) -> None:
        headers = JSON
        if error.retry_after is not None:
            headers += b"retry-after: %d\r\n" % error.retry_after
        if error.allow:
            headers += f"allow: {error.allow}\r\n".encode()
        if error.status == 401:
            headers += b"www-authenticate: Bearer\r\n"
        if error.close:
            self._keep = False
        self.whole(error.status, headers, error.body())
